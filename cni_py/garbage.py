"""What a network's containers have left behind: `cni-py gc`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from cni_py import skel
from cni_py.runtime.requests import network_config
from cni_py.spec import versions
from cni_py.spec.attachment import Attachment
from cni_py.spec.call import read_request
from cni_py.spec.collection import Collection, Garbage
from cni_py.spec.environment import Environment
from cni_py.spec.errors import CniError, Code, cni_error_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.runtime import Network
    from cni_py.skel import Carried


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What one plugin of the network found, and what went wrong.

    `unasked` are executables that GC was not passed on to.
    """

    type: str
    found: tuple[Garbage, ...] = ()
    unasked: tuple[str, ...] = ()
    error: str = ""

    def lines(self, *, dry: bool) -> Iterator[str]:
        """The same for a person."""
        did = "would take away" if dry else "took away"
        for one in self.found:
            yield f"{self.type}: {did} {one}"
        for path in self.unasked:
            yield f"{self.type}: not passed on to {path}"


def listed(valid: Iterable[str]) -> list[tuple[str, str]]:
    """(container, interface) of each `CONTAINER/INTERFACE`. Raises CniError 4."""
    pairs = []
    for one in valid:
        container, _, ifname = one.partition("/")
        if not container or not ifname:
            msg = f"{one} is no attachment"
            raise CniError(Code.INVALID_ENVIRONMENT, msg, "write CONTAINER/INTERFACE")
        pairs.append((container, ifname))
    return pairs


def carry_out_deferred() -> Iterator[Carried]:
    """Carry out the DELs that launchers have written down while nobody could. Raises CniError."""
    from cni_py.kernel import deferred

    for name in deferred.pending():
        yield skel.carry_out_deferred(name)


def collect(
    network: Network, valid: Iterable[tuple[str, str]] | None, *, dry: bool, path: str
) -> Iterator[Collected]:
    """Have every plugin of a network collect, in order, as each result is asked for.

    `valid` is None where it is not known what lives. `path` is CNI_PATH.
    """
    for plugin in network.plugins:
        name = plugin.type
        if name not in skel.EXECUTABLES:
            yield Collected(type=name, unasked=(name,))
            continue
        request = read_request(
            Environment("GC", "", "", "", "", path, ""),
            {**os.environ, "CNI_COMMAND": "GC", "CNI_PATH": path},
            network_config(network, plugin),
        )._replace(cni_version=versions.NEWEST)
        alive = None if valid is None else [Attachment(network.name, *one) for one in valid]
        collection = Collection(network.name, alive, dry=dry)
        error = ""
        try:
            skel.collect(name, request, collection)
        except (CniError, OSError) as failure:
            error = str(cni_error_of(failure))
        yield Collected(
            type=name,
            found=tuple(collection.found),
            unasked=tuple(collection.unasked),
            error=error,
        )
