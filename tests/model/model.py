"""What a host must look like after any sequence of calls, as pure functions on values.

No interface, file or rule is touched here, and nothing of cni_py is imported. Every verb returns
what the call must answer: 0, or the code of a CNI error.

A container is its id and the path of its namespace; a namespace is a number that is never used
again. The number of a host port stands for its mapping: each leads to the container's TCP port 80.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, NamedTuple

# What the kernel calls the interface that a plugin gives a container.
_KINDS = {"bridge": "veth", "flannel": "veth", "ptp": "veth", "macvlan": "macvlan"}

OK, BAD_ENVIRONMENT, UNAVAILABLE, LIMITED, REFUSED = 0, 4, 50, 51, 999


class Attachment(NamedTuple):
    """One container's place on one network under one interface name."""

    network: str
    container: str
    ifname: str

    @property
    def pair(self) -> str:
        """What the host's end of its pair is called here."""
        return f"pair of {self.network} {self.container} {self.ifname}"


@dataclass(frozen=True)
class Network:
    """A list of plugins: a main one with host-local, and portmap behind it if it `publishes`."""

    name: str
    kind: str
    subnets: tuple[str, ...] = ()
    size: int = 3
    bridge: str = ""
    is_gateway: bool = False
    masquerades: bool = False
    publishes: bool = False

    @property
    def is_paired(self) -> bool:
        """Whether a container's interface has another end on the host."""
        return self.kind in ("bridge", "flannel", "ptp")

    @property
    def delegates(self) -> bool:
        """Whether what another plugin was told to do is kept in a record."""
        return self.kind == "flannel"

    def pool(self, index: int) -> list[str]:
        """The addresses that a range set gives, in order: the subnet's first is the gateway's."""
        return [str(one) for one in ip_network(self.subnets[index]).hosts()][1 : 1 + self.size]

    def gateways(self) -> set[str]:
        """What the host has on the network's bridge."""
        if not self.is_gateway:
            return set()
        networks = map(ip_network, self.subnets)
        return {f"{one.network_address + 1}/{one.prefixlen}" for one in networks}


@dataclass(frozen=True)
class Link:
    """A container's interface, with the addresses that ADD gave it and those that it has now."""

    owner: Attachment
    given: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Holding:
    """Addresses that host-local has given, and to which namespace."""

    addresses: tuple[str, ...]
    namespace: int


@dataclass(frozen=True)
class Published:
    """The record of a container's ports: `through` is the host's interface to it."""

    ports: tuple[int, ...]
    address: str
    namespace: int
    through: str


@dataclass
class Model:
    """The host. `delegated` has the namespaces of whom there is a record of what was delegated.

    `has_chain`: the chain that masquerades is there, whoever is in its map.
    `opened` are its interfaces to containers that let 127.0.0.0/8 through, `guarded` those where
    what comes in from there is dropped.
    """

    networks: dict[str, Network]
    namespaces: dict[str, int] = field(default_factory=dict)
    links: dict[tuple[str, str], Link] = field(default_factory=dict)
    loopbacks: set[str] = field(default_factory=set)
    bridges: dict[str, set[str]] = field(default_factory=dict)
    held: dict[Attachment, Holding] = field(default_factory=dict)
    of_earlier_boot: set[Attachment] = field(default_factory=set)
    last: dict[tuple[str, int], str] = field(default_factory=dict)
    delegated: dict[Attachment, int] = field(default_factory=dict)
    masquerade_records: dict[Attachment, tuple[str, ...]] = field(default_factory=dict)
    masquerades: dict[str, Attachment] = field(default_factory=dict)
    has_chain: bool = False
    published: dict[Attachment, Published] = field(default_factory=dict)
    port_rules: dict[int, tuple[Attachment, str]] = field(default_factory=dict)
    answer_rules: dict[str, Attachment] = field(default_factory=dict)
    guarded: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    born: int = 0

    # What happens to a host without a plugin.

    def start(self, container: str) -> None:
        """A namespace at the container's path, in the place of the one that is there."""
        self.vanish(container)
        self.born += 1
        self.namespaces[container] = self.born

    def vanish(self, container: str) -> None:
        """The namespace goes, with every interface in it and the other ends of these."""
        self.namespaces.pop(container, None)
        self.loopbacks.discard(container)
        for place in [place for place in self.links if place[0] == container]:
            self._drop_link(place)

    def remove_link(self, container: str, ifname: str) -> None:
        """The container deletes its own interface."""
        self._drop_link((container, ifname))

    def remove_addresses(self, container: str, ifname: str) -> None:
        """The container takes its addresses off."""
        link = self.links[container, ifname]
        self.links[container, ifname] = Link(link.owner, link.given, ())

    def flush(self) -> None:
        """Somebody flushes nftables' ruleset."""
        self.has_chain = False
        self.masquerades.clear()
        self.port_rules.clear()
        self.answer_rules.clear()
        self.guarded.clear()

    def reboot(self) -> None:
        """All of the kernel's goes, and /run; only /var stays."""
        for container in list(self.namespaces):
            self.vanish(container)
        self.flush()
        self.bridges.clear()
        self.opened.clear()
        self.delegated.clear()
        self.masquerade_records.clear()
        self.published.clear()
        self.of_earlier_boot |= set(self.held)

    # The verbs of the main plugins.

    def add(self, one: Attachment) -> int:
        """ADD: all of it or nothing."""
        network = self.networks[one.network]
        earlier = self.delegated.get(one)
        if earlier is not None and not self._lives(one.container, earlier):
            # What is left of it may have been another plugin's.
            self.delete(one)
            earlier = None
        code = self._add_interface(one)
        self.delegated.pop(one, None)
        if code == OK and network.delegates:
            self.delegated[one] = self.namespaces[one.container]
        elif earlier is not None:
            self.delegated[one] = earlier
        return code

    def _add_interface(self, one: Attachment) -> int:
        network = self.networks[one.network]
        if one.container not in self.namespaces:
            return BAD_ENVIRONMENT
        if network.kind == "loopback":
            self.loopbacks.add(one.container)
            return OK
        if (one.container, one.ifname) in self.links:
            return REFUSED
        addresses = self._allocate(one)
        if addresses is None:
            # The undoing is a DEL: what an earlier attachment of the name had goes with it.
            self.delete(one)
            return REFUSED
        self.links[one.container, one.ifname] = Link(one, addresses, addresses)
        if network.bridge:
            self.bridges.setdefault(network.bridge, set()).update(network.gateways())
        if network.masquerades:
            self.masquerade_records[one] = addresses
            self.masquerades.update(dict.fromkeys(addresses, one))
            self.has_chain = True
        return OK

    def delete(self, one: Attachment, *, has_netns: bool = True) -> int:
        """DEL: whatever there is of the attachment goes, whatever the configuration says by now.

        Without CNI_NETNS an interface without an end on the host cannot be reached.
        """
        network = self.networks[one.network]
        if network.kind == "loopback":
            if has_netns:
                self.loopbacks.discard(one.container)
            return OK
        link = self.links.get((one.container, one.ifname))
        if link is not None and link.owner == one and (network.is_paired or has_netns):
            self._drop_link((one.container, one.ifname))
        self._stop_masquerading(one)
        self._forget_earlier_boots(one.network)
        self.held.pop(one, None)
        self.delegated.pop(one, None)
        return OK

    def check(self, one: Attachment) -> int:
        """CHECK with the result of the last ADD that succeeded: 0 if everything is still there."""
        network = self.networks[one.network]
        if network.kind == "loopback":
            if one.container not in self.namespaces:
                return BAD_ENVIRONMENT
            return OK if one.container in self.loopbacks else REFUSED
        self._forget_earlier_boots(one.network)
        held = self.held.get(one)
        if held is not None and one.container not in self.namespaces:
            return BAD_ENVIRONMENT
        link = self.links.get((one.container, one.ifname))
        if held is None or link is None or link.owner != one:
            return REFUSED
        if link.addresses != held.addresses:
            return REFUSED
        if network.masquerades and any(self.masquerades.get(x) != one for x in held.addresses):
            return REFUSED
        return OK

    def status(self, name: str) -> int:
        """STATUS: whether an ADD would find an address, and containers are masqueraded."""
        network = self.networks[name]
        self._forget_earlier_boots(name)
        pools = range(len(network.subnets))
        if not all(self._next_free(network, index) for index in pools):
            return UNAVAILABLE
        own = [one for one in self.masquerade_records if one.network == name]
        lacks = network.masquerades and not self.has_chain and any(map(self._has_pair, own))
        return LIMITED if lacks else OK

    def gc(self, name: str, valid: set[tuple[str, str]] | None) -> int:
        """GC of the main plugin: what the list does not name goes; without one what is nobody's."""
        network = self.networks[name]
        own = [one for one in self.everybody() if one.network == name]
        self._forget_earlier_boots(name)
        if valid is not None:
            for one in own:
                if (one.container, one.ifname) not in valid:
                    # A child of a parent link dies with its namespace and not before.
                    self.delete(one, has_netns=False)
            return OK
        for one in own:
            if network.masquerades and not self._has_pair(one):
                self._stop_masquerading(one)
            held = self.held.get(one)
            if held is not None and not self._lives(one.container, held.namespace):
                del self.held[one]
            record = self.delegated.get(one)
            if record is not None and not self._lives(one.container, record):
                del self.delegated[one]
        return OK

    # The verbs of portmap.

    def publish(self, one: Attachment, ports: tuple[int, ...]) -> int:
        """ADD: a port has one holder; what another interface of the container has is left to it."""
        wanted = tuple(port for port in ports if self._holder_within(one, port) is None)
        for port in wanted:
            holder = self._holder(port)
            if holder not in (None, one) and self._is_alive(holder):
                return REFUSED
        if not wanted:
            return OK
        self.unpublish(one)
        for port in wanted:
            holder = self._holder(port)
            if holder is not None:
                self.unpublish(holder)
        network = self.networks[one.network]
        address = next(x for x in self.held[one].addresses if ":" not in x)
        through = network.bridge or one.pair
        namespace = self.namespaces[one.container]
        self.published[one] = Published(wanted, address, namespace, through)
        self._lead(one)
        self.opened.add(through)
        return OK

    def unpublish(self, one: Attachment) -> int:
        """DEL: what the record says goes."""
        record = self.published.pop(one, None)
        if record is not None:
            self.port_rules = {
                port: rule for port, rule in self.port_rules.items() if rule[0] != one
            }
            self.answer_rules = {
                address: owner for address, owner in self.answer_rules.items() if owner != one
            }
            if all(other.through != record.through for other in self.published.values()):
                self.guarded.discard(record.through)
                self.opened.discard(record.through)
        return OK

    def check_ports(self, one: Attachment, ports: tuple[int, ...]) -> int:
        """CHECK: every port that the attachment was given leads to it."""
        record = self.published.get(one)
        if record is None:
            return OK if all(self._holder_within(one, port) for port in ports) else REFUSED
        if not ports:
            return OK
        rules = all(self.port_rules.get(x) == (one, record.address) for x in record.ports)
        answers = self.answer_rules.get(record.address) == one
        localhost = record.through in self.guarded & self.opened
        return OK if rules and answers and localhost else REFUSED

    def gc_ports(self, name: str, valid: set[tuple[str, str]] | None) -> int:
        """GC of portmap."""
        for one in list(self.published):
            if one.network != name:
                continue
            if valid is None:
                is_gone = not self._has_pair(one) and not self._is_alive(one)
            else:
                is_gone = (one.container, one.ifname) not in valid
            if is_gone:
                self.unpublish(one)
        return OK

    def restore(self) -> None:
        """`cni-py firewall restore`: the rules of all who live, from the records."""
        for one, addresses in self.masquerade_records.items():
            if self._has_pair(one):
                self.masquerades.update(dict.fromkeys(addresses, one))
                self.has_chain = True
        for one in self.published:
            if self._is_alive(one):
                self._lead(one)

    # Who has what.

    def everybody(self) -> set[Attachment]:
        """All of whom there is anything."""
        records = {
            *self.delegated,
            *self.masquerade_records,
            *self.masquerades.values(),
            *self.published,
        }
        return records | set(self.held) | {one.owner for one in self.links.values()}

    def picture(self) -> dict[str, Any]:
        """Everything there is, in the form in which `kernel.seen` tells what it finds."""
        pairs = {
            one.owner for one in self.links.values() if self.networks[one.owner.network].is_paired
        }
        routed = [one for one in pairs if not self.networks[one.network].bridge]
        return {
            "links": {
                place: (_KINDS[self.networks[one.owner.network].kind], sorted(one.addresses))
                for place, one in self.links.items()
            },
            "loopbacks": self.loopbacks & set(self.namespaces),
            "pairs": {one.pair: self.networks[one.network].bridge for one in pairs},
            "bridges": self.bridges,
            "routes": {
                address: one.pair
                for one in routed
                for address in self.links[one.container, one.ifname].given
            },
            "allocated": {
                (one.network, address): (one.container, one.ifname)
                for one, held in self.held.items()
                for address in held.addresses
            },
            "last": self.last,
            "delegated": set(self.delegated),
            "masquerade records": set(self.masquerade_records),
            "masquerades": self.masquerades,
            "portmap records": set(self.published),
            "claims": {x: one for one, record in self.published.items() for x in record.ports},
            "port rules": self.port_rules,
            "answer rules": self.answer_rules,
            "localhost": {(one, record.through) for one, record in self.published.items()},
            "guarded": self.guarded,
            "opened": self.opened,
            "unexplained": [],
        }

    def _drop_link(self, place: tuple[str, str]) -> None:
        self.opened.discard(self.links.pop(place).owner.pair)

    def _lives(self, container: str, namespace: int) -> bool:
        return self.namespaces.get(container) == namespace

    def _has_pair(self, one: Attachment) -> bool:
        link = self.links.get((one.container, one.ifname))
        return link is not None and link.owner == one and self.networks[one.network].is_paired

    def _is_alive(self, one: Attachment) -> bool:
        return self._lives(one.container, self.published[one].namespace)

    def _holder(self, port: int) -> Attachment | None:
        holders = (one for one, record in self.published.items() if port in record.ports)
        return next(holders, None)

    def _holder_within(self, one: Attachment, port: int) -> Attachment | None:
        holder = self._holder(port)
        if holder in (None, one) or holder.container != one.container:
            return None
        return holder if self._is_alive(holder) else None

    # host-local.

    def _allocate(self, one: Attachment) -> tuple[str, ...] | None:
        """An address of each range set: the one held before, else the next free one."""
        network = self.networks[one.network]
        self._forget_earlier_boots(one.network)
        before = self.held.get(one)
        if before is not None:
            if self._lives(one.container, before.namespace):
                return None
            del self.held[one]
            given: list[str] = list(before.addresses)
        else:
            found = [self._next_free(network, index) for index in range(len(network.subnets))]
            if not all(found):
                return None
            given = [address for address in found if address]
            self.last.update({(network.name, index): x for index, x in enumerate(given)})
        self.held[one] = Holding(tuple(given), self.namespaces[one.container])
        return tuple(given)

    def _next_free(self, network: Network, index: int) -> str | None:
        pool = network.pool(index)
        taken = {
            x
            for one, held in self.held.items()
            if one.network == network.name
            for x in held.addresses
        }
        last = self.last.get((network.name, index))
        start = pool.index(last) + 1 if last in pool else 0
        return next((x for x in pool[start:] + pool[:start] if x not in taken), None)

    def _forget_earlier_boots(self, network: str) -> None:
        for one in [one for one in self.of_earlier_boot if one.network == network]:
            self.of_earlier_boot.remove(one)
            self.held.pop(one, None)

    # Rules.

    def _stop_masquerading(self, one: Attachment) -> None:
        self.masquerade_records.pop(one, None)
        self.masquerades = {x: owner for x, owner in self.masquerades.items() if owner != one}

    def _lead(self, one: Attachment) -> None:
        record = self.published[one]
        self.port_rules.update(dict.fromkeys(record.ports, (one, record.address)))
        self.answer_rules[record.address] = one
        self.guarded.add(record.through)
