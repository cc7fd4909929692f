"""What cni-py and CNI made on a host, as values: what `reading` finds, and what commands print.

Addresses are texts, as the kernel's tools write them; times are seconds since 1970; rates are bits
a second. Of these structs the JSON of `cni-py show --json` is made: a key that was there stays.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

import msgspec

from cni_py.kernel.links import Counters
from cni_py.spec.attachment import Attachment
from cni_py.spec.results import DNS

# More addresses are not counted: JSON's readers have no larger whole numbers (RFC 8259, 6).
MOST_COUNTED = 2**53 - 1
CNI_PY, REFERENCE = "cni-py", "reference"

# up: its interface is there and up. down: there, and down. missing: its namespace is there, and no
# such interface. gone: its namespace is not there any more. unknown: nobody knows where it was, or
# its namespace cannot be looked into.
State = Literal["up", "down", "missing", "gone", "unknown"]


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """Frozen, with its fields by name."""


class Problem(_Value, frozen=True):
    """Something that does not fit: `subject` is what it is about, `text` says it to a person.

    `key` is that of the attachment, where it is about one.
    """

    subject: str
    text: str
    key: str = ""


class Route(_Value, frozen=True):
    """A route of a container. `gateway` is `""` for what is on the link, `dev` the interface."""

    destination: str
    gateway: str = ""
    dev: str = ""
    table: int = 254
    metric: int = 0
    mtu: int = 0


class Vlan(_Value, frozen=True):
    """A VLAN of a bridge's port."""

    id: int
    pvid: bool = False
    untagged: bool = False


class Interface(_Value, frozen=True):
    """A link, of the host or of a container. `master` is its bridge's or VRF's name.

    `parent` is the name of the link that a macvlan, ipvlan or vlan is on, where it can be seen.
    """

    ifindex: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    operstate: str
    master: str = ""
    parent: str = ""
    alias: str = ""
    addresses: tuple[str, ...] = ()
    hairpin: bool = False
    isolated: bool = False
    vlans: tuple[Vlan, ...] = ()
    counters: Counters = Counters()


class Bridge(_Value, frozen=True):
    """A bridge that containers are on, or that a configuration names. `ports` are links' names."""

    interface: Interface
    networks: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    vlan_filtering: bool = False


class HostLink(_Value, frozen=True):
    """A link of the host that is no bridge and no host end of a container.

    `role` is `uplink` (a default route leads through it), `parent` (of a container's interface),
    `port` (of one of the bridges), or `block` (bandwidth's, of the attachment `key`).
    """

    interface: Interface
    role: Literal["uplink", "parent", "port", "block"]
    key: str = ""


class Namespace(_Value, frozen=True):
    """A container's network namespace.

    `path` is where it is bound, or that of one of the processes in it, `pids`. `id` is the number
    that the host knows it by. `why` says why it could not be looked into, `""` where it could.
    """

    path: str
    inode: int
    cookie: int | None = None
    id: int | None = None
    pids: tuple[int, ...] = ()
    why: str = ""


class Rate(_Value, frozen=True):
    """A limit of the bandwidth plugin: what goes `to` the container, or comes `from` it."""

    direction: Literal["to", "from"]
    bits: int
    burst_bytes: int
    link: str


class Sysctl(_Value, frozen=True):
    """A kernel parameter that tuning set: its path below /proc/sys, what it set and what there is.

    `live` is None where the container cannot be looked into.
    """

    key: str
    wanted: str
    live: str | None = None


class Attached(_Value, frozen=True):
    """One container's place on one network, with all that is known of it.

    `maker` is `cni-py` where a label or a record says so, else `reference`. `namespace` is None
    where none is known; `why` says why the state is what it is. `addresses` are those that it has,
    or without a look inside those that it was given. `expected`, `expected_routes` and
    `expected_mac` are the result's; without libcni's cache the addresses that host-local gave.
    `routes` are those of the interface, `names` what the network's containers find it by.
    `evidence` are the places that know of it, `files` those on disk. `since` is 0 where nothing
    says it.
    """

    network: str
    container_id: str
    ifname: str
    key: str
    maker: str
    state: State
    why: str = ""
    namespace: Namespace | None = None
    host: Interface | None = None
    inside: Interface | None = None
    addresses: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    expected_routes: tuple[Route, ...] = ()
    expected_mac: str = ""
    gateways: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()
    names: tuple[str, ...] = ()
    rates: tuple[Rate, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    plugins: tuple[str, ...] = ()
    since: float = 0.0
    evidence: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def attachment(self) -> Attachment:
        """Its identity."""
        return Attachment(self.network, self.container_id, self.ifname)

    @property
    def kind(self) -> str:
        """What the interface is: veth, macvlan and so on; `""` where it cannot be seen."""
        seen = self.inside or self.host
        return "" if seen is None else seen.kind or "device"


class Network(_Value, frozen=True):
    """A network: of a configuration in `file`, or known by what is attached to it alone.

    `plugins` is the chain, `bridge` and `parent` are the host's links that its first one names.
    """

    name: str
    file: str = ""
    cni_version: str = ""
    plugins: tuple[str, ...] = ()
    bridge: str = ""
    parent: str = ""
    ipam: str = ""


class PoolRange(_Value, frozen=True):
    """A run of addresses that host-local gives out from. `set` is its range set's number.

    `size` counts every address from `first` to `last` but the gateway, at most MOST_COUNTED;
    `given` those in use. `subnet` is `""` where no configuration is known, and only the index tells
    the ends.
    """

    subnet: str
    first: str
    last: str
    gateway: str
    size: int
    given: int
    set: int = 0

    @property
    def addresses(self) -> int:
        """The same as `size`, also where that is more than is counted."""
        if self.size < MOST_COUNTED:
            return self.size
        return int(ip_address(self.last)) - int(ip_address(self.first)) + 1


class Given(_Value, frozen=True):
    """An address that host-local has given out; `container_id` is `""` where its file is damaged.

    `state` is that of the attachment that has it.
    """

    address: str
    container_id: str
    ifname: str
    since: float
    path: str
    state: State = "unknown"
    outside: bool = False


class Pool(_Value, frozen=True):
    """host-local's addresses of one network. `outside` in `given` are in none of the ranges.

    `last_reserved` has the last address that was given of each range set, by its number.
    """

    network: str
    folder: str
    ranges: tuple[PoolRange, ...] = ()
    given: tuple[Given, ...] = ()
    last_reserved: dict[str, str] = {}
    damaged: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many addresses the ranges have."""
        return sum(one.size for one in self.ranges)

    def of(self, containers: frozenset[str]) -> Pool:
        """The same, with what was given to some containers alone."""
        given = tuple(one for one in self.given if one.container_id in containers)
        return msgspec.structs.replace(self, given=given)


class Published(_Value, frozen=True):
    """A port of the host that leads to a container. `host_ip` is `""` for every address.

    `backend` is nftables or iptables. `active` says whether the kernel has the rule, which
    somebody may have flushed; `known` whether a record of ours says that it must be there.
    `container_id` and `network` are `""` where the rule does not say whose it is.
    """

    version: int
    protocol: str
    host_ip: str
    host_port: int
    address: str
    container_port: int
    backend: str
    maker: str
    container_id: str = ""
    network: str = ""
    key: str = ""
    active: bool = True
    known: bool = False

    def __str__(self) -> str:
        """As `0.0.0.0:8080 -> 10.1.2.2:80/tcp`."""
        anywhere = "0.0.0.0" if self.version == 4 else "::"  # noqa: S104 - a text
        return (
            f"{endpoint(self.host_ip or anywhere, self.host_port)} -> "
            f"{endpoint(self.address, self.container_port)}/{self.protocol}"
        )


class Masquerade(_Value, frozen=True):
    """A source address that is masqueraded; whose it is, as far as the rule says."""

    address: str
    backend: str
    maker: str
    container_id: str = ""
    network: str = ""
    key: str = ""
    active: bool = True


class Allowed(_Value, frozen=True):
    """What the firewall plugin lets through: an address, and the policy of its bridge.

    `policy` is open, same-bridge or isolated.
    """

    address: str
    backend: str
    container_id: str = ""
    network: str = ""
    key: str = ""
    policy: str = "open"
    bridge: str = ""
    active: bool = True


class Inventory(_Value, frozen=True):
    """Everything, at one moment; `problems` are what was noticed while reading."""

    networks: tuple[Network, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    attachments: tuple[Attached, ...] = ()
    links: tuple[HostLink, ...] = ()
    pools: tuple[Pool, ...] = ()
    ports: tuple[Published, ...] = ()
    masquerades: tuple[Masquerade, ...] = ()
    allowed: tuple[Allowed, ...] = ()
    problems: tuple[Problem, ...] = ()

    def of(
        self, networks: frozenset[str] = frozenset(), containers: frozenset[str] = frozenset()
    ) -> Inventory:
        """The same, of some networks and some containers alone.

        With the containers come their networks and bridges, and of the pools what they were given.
        """
        mine = [
            one
            for one in self.attachments
            if one.network in networks or one.container_id in containers
        ]
        theirs = {one.network for one in mine}
        bridges = {one.host.master for one in mine if one.host is not None}
        return msgspec.structs.replace(
            self._narrowed(mine, networks),
            networks=tuple(one for one in self.networks if one.name in networks | theirs),
            bridges=tuple(
                one
                for one in self.bridges
                if networks.intersection(one.networks) or one.interface.name in bridges
            ),
            pools=tuple(
                one if one.network in networks else one.of(containers)
                for one in self.pools
                if one.network in networks | theirs
            ),
        )

    def _narrowed(self, mine: list[Attached], names: frozenset[str]) -> Inventory:
        """With those attachments alone, and what is theirs or of a network in `names`."""
        keys = {one.key for one in mine}
        ids = {one.container_id for one in mine}
        parents = {one.inside.parent for one in mine if one.inside is not None}
        masters = {one.host.master for one in mine if one.host is not None} - {""}

        def own(one: Published | Masquerade | Allowed) -> bool:
            by_id = not one.network and one.container_id in ids
            return one.key in keys or one.network in names or by_id

        def seen(one: HostLink) -> bool:
            if one.role == "block":
                return one.key in keys
            its = one.interface
            return one.role == "uplink" or its.name in parents or its.master in masters

        return msgspec.structs.replace(
            self,
            attachments=tuple(mine),
            links=tuple(filter(seen, self.links)),
            ports=tuple(filter(own, self.ports)),
            masquerades=tuple(filter(own, self.masquerades)),
            allowed=tuple(filter(own, self.allowed)),
            problems=tuple(one for one in self.problems if one.key in keys or one.subject in names),
        )


def endpoint(address: str, port: int) -> str:
    """`10.1.2.2:80`, `[fd00::2]:80`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
