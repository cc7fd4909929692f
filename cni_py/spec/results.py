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
    gw: IP | None = None
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None


class DNS(msgspec.Struct, frozen=True):
    """Name resolution for the container. False when nothing is set."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

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
