"""A network namespace as a packet meets it: read once, routes asked as they are needed."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cni_py.kernel import addresses, iptables, links, neighbours, ruleset, sysctl, tc
from cni_py.kernel.errors import KernelError
from cni_py.kernel.listeners import listeners
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.nftables import nftables_if_installed
from cni_py.kernel.route_lookup import Decision, look_up
from cni_py.spec.errors import CniError

from . import iptables_text
from .nft import Ruleset

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cni_py.kernel.links import Link
    from cni_py.kernel.listeners import Listener
    from cni_py.kernel.netns import Netns
    from cni_py.kernel.tc import Qdisc
    from cni_py.spec.addresses import IP

    from .nft import Chain
    from .packet import Outcome, Packet

_LOCAL = frozenset({"local", "broadcast", "multicast", "anycast"})
_LOOPBACK = 1


class Space:
    """One namespace: the host's with an empty path. A context manager that closes it.

    `doubts` are what could not be read. Raises CniError where it cannot be entered.
    """

    def __init__(self, name: str, path: str = "") -> None:
        self.name = name
        self.path = path
        self.doubts: list[str] = []
        self._stack = ExitStack()
        self._netns: Netns | None = None
        if path:
            self._netns = open_netns(path)
            if self._netns is None:
                raise KernelError(f"open the network namespace {path}", 2)
            self._stack.enter_context(self._netns)
        with self.entered():
            self.netlink = self._stack.enter_context(Netlink())
            self.links = {one.ifindex: one for one in links.dump(self.netlink)}
            self.addresses = addresses.dump_all(self.netlink)
            self.neighbours = neighbours.dump(self.netlink)
            self.qdiscs: dict[int, list[Qdisc]] = tc.dump(self.netlink)
            self.listeners: list[Listener] = listeners()
            self.objects = self._objects()
            self._tables = self._iptables()
        kinds = {one.name: one.kind for one in self.links.values()}
        read = frozenset((("ip", "ip6")[one.version == 6], one.name) for one in self._tables)
        self.ruleset = Ruleset(self.objects, self.address_type, kinds, read)

    def __enter__(self) -> Space:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def entered(self) -> AbstractContextManager[None]:
        """Be in it while the block runs."""
        return nullcontext() if self._netns is None else self._netns.entered()

    def link(self, name: str) -> Link | None:
        """The link of that name."""
        return next((one for one in self.links.values() if one.name == name), None)

    def owns(self, address: IP) -> bool:
        """Whether one of its links has the address."""
        return (
            any(one.address.ip == address for own in self.addresses.values() for one in own)
            or self.address_type(str(address)) == "local"
        )

    def route(self, packet: Packet, iif: int = 0) -> Decision:
        """Where it sends a packet: one that has come in through `iif`, or its own."""
        source = packet.source if iif or not packet.source.is_unspecified else None
        return look_up(self.netlink, packet.destination, source=source, iif=iif, mark=packet.mark)

    def way_to(self, address: IP, source: IP | None = None) -> Decision:
        """Where it sends a packet of its own."""
        return look_up(self.netlink, address, source=source)

    def address_type(self, address: str) -> str:
        """As `fib daddr type` and `-m addrtype` say."""
        kind = self.way_to(ip_address(address)).kind
        return kind if kind in _LOCAL else "unicast"

    def sysctl(self, key: str) -> int:
        """A parameter's number, 0 where there is none."""
        with self.entered():
            try:
                return int(sysctl.read(key).split()[0])
            except (KernelError, ValueError, IndexError):
                return 0

    def chains(self, hook: str, family: str) -> list[Chain]:
        """Every base chain of nftables and iptables at a hook, in the kernel's order."""
        found = self.ruleset.chains(hook, family)
        version = 4 if family == "ip" else 6
        for table in self._tables:
            if table.version == version:
                found += [one for one in iptables_text.base_chains(table) if one.hook == hook]
        return sorted(found, key=lambda one: one.priority)

    def evaluate(self, chain: Chain, packet: Packet) -> Outcome:
        """What one of `chains` makes of a packet."""
        for table in self._tables:
            family = "ip" if table.version == 4 else "ip6"
            is_its = (chain.family, chain.table) == (family, table.name)
            if is_its and chain.name in table.policies:
                return iptables_text.evaluate(table, chain, packet, self.address_type)
        return self.ruleset.evaluate(chain, packet)

    def _objects(self) -> list[dict[str, Any]]:
        if nftables_if_installed() is None:
            self.doubts.append(f"{self.name}: libnftables is not installed, its rules are unknown")
            return []
        try:
            return ruleset.objects()
        except CniError as error:
            self.doubts.append(f"{self.name}: the rules of nftables cannot be listed: {error}")
            return []

    def _iptables(self) -> list[iptables_text.Table]:
        """The tables that are there: to ask for others would make them."""
        found = []
        for version, family in ((4, "ip"), (6, "ip6")):
            for name in self._listable(version, family):
                try:
                    lines = iptables.listing(version, name)
                except CniError as error:
                    self.doubts.append(f"{self.name}: {error}")
                    continue
                found.append(iptables_text.parse(version, name, lines))
        return found

    def _listable(self, version: int, family: str) -> list[str]:
        """The tables of iptables that the installed one shows; the others' are doubts."""
        tables = [one["table"] for one in self.objects if "table" in one]
        names = {one["name"] for one in tables if one["family"] == family}
        shown, hidden, variant = iptables.listable(
            version, frozenset(names.intersection(iptables_text.TABLES))
        )
        hidden = hidden.intersection(iptables_text.TABLES)
        if hidden:
            names_of = ", ".join(f"{family} {one}" for one in sorted(hidden))
            text = f"{self.name}: {names_of} cannot be listed by the iptables that is installed"
            self.doubts.append(f"{text} ({variant})")
        return [one for one in iptables_text.TABLES if one in shown]
