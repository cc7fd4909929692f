"""Whom SRC and DST name, and the namespaces that a packet comes through."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cni_py.inventory.reading import read
from cni_py.kernel import links
from cni_py.spec.errors import CniError, Code
from cni_py.spec.names import beginning_with

from .space import Space

if TYPE_CHECKING:
    from cni_py.inventory.model import Attached
    from cni_py.kernel.links import Link
    from cni_py.spec.addresses import IP

HOST = "host"
_MOST_PORT = 65535


class End(NamedTuple):
    """One end: a container, the host, or an address outside, for which `space` is None."""

    name: str
    space: Space | None
    addresses: tuple[IP, ...]
    port: int = 0


class Spaces:
    """The host and its containers; each is opened when a packet comes to it.

    A context manager that closes them. Raises CniError.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.host = self._stack.enter_context(Space(HOST))
        self.opened: list[Space] = [self.host]
        self.attachments = read().attachments
        self._by_path: dict[str, Space] = {}

    def __enter__(self) -> Spaces:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def vlans(self) -> dict[int, tuple[tuple[int, bool], ...]]:
        """(VLAN, whether it is the PVID) of each port that has VLANs, by ifindex."""
        found = links.bridge_vlans_by_port(self.host.netlink)
        return {
            index: tuple((number, bool(flags & links.BRIDGE_VLAN_PVID)) for number, flags in own)
            for index, own in found.items()
        }

    def inside(self, one: Attached) -> Space | None:
        """A container's namespace; None where nobody knows it, or it is gone."""
        if one.namespace is None or one.namespace.why or one.state in ("gone", "unknown"):
            return None
        path = one.namespace.path
        if path not in self._by_path:
            space = self._stack.enter_context(Space(one.container_id, path))
            self._by_path[path] = space
            self.opened.append(space)
        return self._by_path[path]

    def behind(self, link: Link) -> Attached | None:
        """The container whose pair ends in a link of the host."""
        ours = (one for one in self.attachments if one.host is not None)
        return next((one for one in ours if one.host and one.host.ifindex == link.ifindex), None)

    def attachment(self, space: Space, ifname: str) -> Attached | None:
        """The attachment that an interface of a container is of."""
        for one in self.attachments:
            if one.ifname == ifname and one.namespace and one.namespace.path == space.path:
                return one
        return None

    # Naming.

    def source(self, text: str) -> End:
        """A container, `host`, or an address. Raises CniError 4."""
        return self._end(text, 0)

    def destination(self, text: str) -> End:
        """The same with `:PORT` behind it; an IPv6 address stands in brackets then."""
        name, port = _split(text)
        return self._end(name, port)

    def _end(self, name: str, port: int) -> End:
        if name == HOST:
            return End(HOST, self.host, self._addresses(self.host), port)
        try:
            address = ip_address(name)
        except ValueError:
            return self._container(name, port)
        for one in self.attachments:
            if str(address) in (each.partition("/")[0] for each in one.addresses):
                return End(one.container_id, self.inside(one), (address,), port)
        is_own = self.host.owns(address)
        return End(str(address), self.host if is_own else None, (address,), port)

    def _container(self, name: str, port: int) -> End:
        """By its id, or a beginning of it that no other has."""
        ids = beginning_with(name, (one.container_id for one in self.attachments))
        if not ids:
            known = ", ".join(sorted({one.container_id for one in self.attachments})[:5])
            details = f"there are {known}" if known else "there is no container here"
            raise CniError(Code.INVALID_ENVIRONMENT, f"{name!r} is no address and no container",
                f"{details}; write a container's id, an address, or host")  # fmt: skip
        if len(ids) > 1:
            msg = f"{len(ids)} containers begin with {name!r}"
            raise CniError(Code.INVALID_ENVIRONMENT, msg, ", ".join(ids))
        found = [one for one in self.attachments if one.container_id == ids[0]]
        space = next(filter(None, map(self.inside, found)), None)
        if space is None:
            why = found[0].why or "nobody recorded its namespace"
            raise CniError(Code.UNKNOWN_CONTAINER, f"{ids[0]} cannot be looked into", why)
        own = (each.partition("/")[0] for one in found for each in one.addresses)
        return End(ids[0], space, tuple(map(ip_address, own)), port)

    def _addresses(self, space: Space) -> tuple[IP, ...]:
        own = [one.address.ip for each in space.addresses.values() for one in each]
        # Its loopback ones come last: nobody else can send to them.
        return tuple(sorted(own, key=lambda one: (one.is_loopback, one.is_link_local)))


def _split(text: str) -> tuple[str, int]:
    """`10.1.2.2:80`, `[fd00::2]:80`, `id:80`, or any of them without a port. Raises CniError 4."""
    name, port = text, ""
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        name, _, port = text.partition(":")
    if not port:
        return name, 0
    if not port.isdecimal() or not 0 < int(port) <= _MOST_PORT:
        msg = f"{port!r} is no port"
        raise CniError(Code.INVALID_ENVIRONMENT, msg, "write DST:PORT, or [DST]:PORT for IPv6")
    return name, int(port)
