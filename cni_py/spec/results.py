"""Results in the newest form, which is the only one that the plugins see.

`conversion` writes them in every older version and reads those. Field rules: spec.md section 8.2.
"""

from __future__ import annotations

import msgspec

from .addresses import IP, Cidr


class Interface(msgspec.Struct, frozen=True):
    """One interface: on the host side `sandbox` is empty, else it is the netns path of the ADD."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = msgspec.field(default="", name="socketPath")
    pci_id: str = msgspec.field(default="", name="pciID")


class IPConfig(msgspec.Struct, frozen=True):
    """One address of an interface; `interface` is an index into `Result.interfaces`."""

    address: Cidr
    gateway: IP | None = None
    interface: int | None = None


class Route(msgspec.Struct, frozen=True):
    """One route. `priority` is the metric; `table` and `scope` distinguish 0 from unset."""

    dst: Cidr
    """Where the route leads: a prefix such as `0.0.0.0/0`."""
    gw: IP | None = None
    """The next hop; none: the address's gateway."""
    mtu: int = 0
    """Of packets along this route; 0: the interface's."""
    advmss: int = 0
    """The largest TCP segment to announce; 0: the kernel's choice."""
    priority: int = 0
    """The route's metric; 0: the kernel's default."""
    table: int | None = None
    """The routing table; none: the main one."""
    scope: int | None = None
    """How far the destination is: 0 everywhere, 253 on the link, 254 the host itself."""


class DNS(msgspec.Struct, frozen=True):
    """Name resolution for the container. False when nothing is set."""

    nameservers: tuple[str, ...] = ()
    """Addresses of name servers, the most important one first."""
    domain: str = ""
    """The domain of short names."""
    search: tuple[str, ...] = ()
    """Domains to search for short names, in this order."""
    options: tuple[str, ...] = ()
    """Options as in resolv.conf, such as `ndots:5`."""

    def __bool__(self) -> bool:
        """Whether any of the four is set."""
        return bool(self.nameservers or self.domain or self.search or self.options)


class Result(msgspec.Struct, frozen=True):
    """What an ADD produced, without a version: `conversion` labels it."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()

    def container_interface(self, ifname: str, netns: str) -> int | None:
        """The index of the interface `ifname` in the sandbox `netns`; the last one wins (X-03)."""
        found = None
        for index, interface in enumerate(self.interfaces):
            if interface.name == ifname and interface.sandbox == netns:
                found = index
        return found
