"""Containers' network namespaces: which there are, and what is in each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from cni_py.kernel import addresses, links, netns_ids, routes
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import Identity, cookie, of_processes, open_netns, own_identity
from cni_py.spec.errors import CniError

from .model import Interface, Namespace, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cni_py.kernel.addresses import Address
    from cni_py.kernel.links import Link
    from cni_py.kernel.netns import Netns

# Where runtimes bind namespaces, beside what their records and caches say.
_FOLDERS = ("/run/netns", "/run/docker/netns")
_LINK_LOCAL = "fe80::"


class Inside(NamedTuple):
    """What is in a namespace: its links, and their addresses and the routes by ifindex."""

    namespace: Namespace
    links: Sequence[Link] = ()
    addresses: Mapping[int, Sequence[Address]] = {}
    routes: Sequence[Route] = ()

    def named(self, name: str) -> Link | None:
        """The link of that name."""
        return next((one for one in self.links if one.name == name), None)


class Namespaces:
    """Every namespace that was found: by path, and by the number that the host knows it by."""

    def __init__(self, host: Netlink, paths: Iterable[str]) -> None:
        """Look into those at the paths, and those of processes that the host has a link to.

        What cannot be opened or entered is noted, and never raised.
        """
        self._host = host
        self._processes = of_processes()
        self._own = own_identity()
        self.inside: dict[Identity, Inside] = {}
        self.by_path: dict[str, Inside | None] = {}
        self.by_id: dict[int, Inside] = {}
        for path in dict.fromkeys((*_bound(), *paths)):
            self.by_path[path] = self._at(path)
        for identity, pids in self._processes.items():
            if identity not in self.inside and identity != self._own:
                self._at(f"/proc/{pids[0]}/ns/net", only_linked=True)

    def _at(self, path: str, *, only_linked: bool = False) -> Inside | None:
        """The namespace at a path; None where there is none, or it is the host's own."""
        try:
            opened = open_netns(path)
        except CniError as error:
            return Inside(Namespace(path=path, inode=0, why=str(error)))
        if opened is None:
            return None
        with opened as container:
            return self._read(container, only_linked=only_linked)

    def _read(self, container: Netns, *, only_linked: bool) -> Inside | None:
        identity = container.identity
        if identity == self._own:
            return None
        if identity in self.inside:
            return self.inside[identity]
        try:
            number = netns_ids.id_of(self._host, container.fd)
        except CniError:
            number = None
        if only_linked and number is None:
            return None
        found = self._looked_into(container, number)
        self.inside[identity] = found
        if number is not None:
            self.by_id[number] = found
        return found

    def _looked_into(self, container: Netns, number: int | None) -> Inside:
        identity = container.identity
        about = Namespace(
            path=container.path,
            inode=identity.inode,
            id=number,
            pids=tuple(self._processes.get(identity, ())),
        )
        try:
            with container.entered():
                about = replace(about, cookie=cookie())
                inside = Netlink()
            with inside:
                have = links.dump(inside)
                names = {one.ifindex: one.name for one in have}
                own = addresses.dump_all(inside)
                leading = tuple(_route(one, names) for one in routes.dump_unicast(inside))
        except CniError as error:
            return Inside(replace(about, why=str(error)))
        return Inside(about, have, own, leading)


def _bound() -> Iterator[str]:
    for folder in _FOLDERS:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        yield from (f"{folder}/{name}" for name in names)


def _route(one: routes.SeenRoute, names: Mapping[int, str]) -> Route:
    return Route(
        destination=one.destination,
        gateway=one.gateway,
        dev=names.get(one.link, ""),
        table=one.table,
        metric=one.priority,
        mtu=one.mtu,
    )


def interface(
    link: Link, *, have: Sequence[Address] = (), master: str = "", parent: str = ""
) -> Interface:
    """A kernel's link as the inventory has it; link-local addresses are left out."""
    own = tuple(str(one.address) for one in have if not str(one.address).startswith(_LINK_LOCAL))
    return Interface(
        ifindex=link.ifindex,
        name=link.name,
        kind=link.kind,
        mac=link.mac,
        mtu=link.mtu,
        up=link.up,
        operstate=link.operstate,
        master=master,
        parent=parent,
        alias=link.alias,
        addresses=own,
        hairpin=link.hairpin,
        isolated=link.isolated,
        counters=link.counters,
    )
