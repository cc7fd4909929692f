"""What is looked up on the host: executables, interfaces and routes."""

from __future__ import annotations

import os
from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel import links, routes
from cni_py.kernel.netlink import Netlink

if TYPE_CHECKING:
    from cni_py.spec.addresses import Network

# Routes to single containers, which are of the networks that are looked at.
_TO_CONTAINERS = frozenset({"veth", "ifb"})


class Route(NamedTuple):
    """A way of the host: to where, and through which interface."""

    destination: Network
    interface: str


class Host(NamedTuple):
    """What is there. Without `interfaces` nothing is known of the kernel's side.

    `executables` are the names in CNI_PATH's folders; none of the folders may be there.
    """

    cni_path: str = ""
    executables: frozenset[str] = frozenset()
    has_executables: bool = False
    interfaces: frozenset[str] = frozenset()
    routes: tuple[Route, ...] = ()

    @classmethod
    def with_executables(cls, cni_path: str) -> Host:
        """The executables of a path alone."""
        found: set[str] = set()
        folders = [one for one in cni_path.split(":") if os.path.isdir(one)]
        for folder in folders:
            paths = (os.path.join(folder, one) for one in os.listdir(folder))
            files = (one for one in paths if os.path.isfile(one) and os.access(one, os.X_OK))
            found.update(map(os.path.basename, files))
        return cls(cni_path, frozenset(found), bool(folders))

    def with_kernel(self) -> Host:
        """The same, with the host's interfaces and routes. Raises KernelError."""
        with Netlink() as netlink:
            have = {one.ifindex: one for one in links.dump(netlink)}
            found = []
            for one in routes.dump_unicast(netlink):
                link = have.get(one.link)
                if link is None or link.kind in _TO_CONTAINERS or one.table != routes.MAIN_TABLE:
                    continue
                destination = ip_network(one.destination, strict=False)
                if destination.prefixlen and not destination.is_link_local:
                    found.append(Route(destination, link.name))
        names = frozenset(one.name for one in have.values())
        return self._replace(interfaces=names, routes=tuple(found))
