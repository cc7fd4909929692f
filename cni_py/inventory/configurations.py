"""Networks' configurations, as runtimes read them, and libcni's cache of results."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.runtime import load_folder, parse_network
from cni_py.runtime.cache import Cache
from cni_py.runtime.folders import DEFAULT_FOLDER
from cni_py.spec import conversion
from cni_py.spec.errors import CniError
from cni_py.spec.results import Result

from .model import Network, Problem
from .sources import delegating, folder_of, sets_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cni_py import runtime
    from cni_py.ipam.ranges import RangeSet
    from cni_py.spec.attachment import Attachment

_DEFAULT_BRIDGE = "cni0"
_PARENTED = ("macvlan", "ipvlan", "vlan")


class Configured(NamedTuple):
    """A configuration that makes sense: the network as it is shown, and as it was loaded."""

    network: Network
    loaded: runtime.Network

    @property
    def plugins(self) -> tuple[Mapping[str, Any], ...]:
        """Each plugin's configuration."""
        return tuple(one.config for one in self.loaded.plugins)

    def ranges(self) -> tuple[RangeSet, ...]:
        """The range sets that addresses are given out of, as far as this node has any."""
        network = self.network
        found = (sets_of(delegating(one), network.name, network.cni_version)
                 for one in self.plugins)  # fmt: skip
        return next(filter(None, found), ())

    def data_dir(self) -> str:
        """The folder of allocations; `""` where it is not configured."""
        return next(filter(None, (folder_of(delegating(one)) for one in self.plugins)), "")


class Kept(NamedTuple):
    """What libcni keeps of an attachment; `since` is when it was written, in epoch seconds."""

    attachment: Attachment
    path: str
    netns: str
    since: float
    configured: Configured | None
    result: Result


def configured(problems: list[Problem], folder: str = DEFAULT_FOLDER) -> list[Configured]:
    """The configurations of a folder, in their order; what cannot be read is noted."""
    try:
        found = load_folder(folder)
    except CniError as error:
        problems.append(Problem(subject=folder, text=str(error)))
        return []
    problems += (_unreadable(*one) for one in found.unreadable.items())
    return [_configured(one) for one in found.networks]


def _unreadable(path: str, error: CniError) -> Problem:
    why = str(error).removeprefix(f"{path}: ")
    return Problem(subject=path, text=f"cannot be read: {why.removeprefix('cannot be read: ')}")


def _configured(one: runtime.Network) -> Configured:
    first = delegating(one.plugins[0].config) if one.plugins else {}
    ipam = first.get("ipam")
    network = Network(
        name=one.name,
        file=one.path,
        cni_version=one.version,
        plugins=tuple(plugin.type for plugin in one.plugins),
        bridge=_text(first, "bridge") or _DEFAULT_BRIDGE if first.get("type") == "bridge" else "",
        parent=_text(first, "master") if first.get("type") in _PARENTED else "",
        ipam=_text(ipam, "type") if isinstance(ipam, dict) else "",
    )
    return Configured(network, one)


def _text(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    return value if isinstance(value, str) else ""


def kept(problems: list[Problem]) -> Iterator[Kept]:
    """What libcni's cache has of attachments; what cannot be read is noted."""
    cache = Cache()
    try:
        listing = cache.listing()
    except CniError as error:
        problems.append(Problem(subject="libcni's cache", text=str(error)))
        return
    for path, why in listing.unreadable.items():
        problems.append(Problem(subject=path, text=f"cannot be read: {why}"))
    for one in listing.attachments:
        yield _kept(one, cache.path(one.attachment), problems)


def _kept(one: runtime.Cached, path: str, problems: list[Problem]) -> Kept:
    configured, result = None, Result()
    try:
        configured = _configuration_in(one.config) if one.config else None
    except CniError as error:
        problems.append(Problem(subject=path, text=f"its configuration cannot be read: {error}"))
    if one.document is not None:
        try:
            result = conversion.from_wire(one.document, "")
        except (ValueError, RecursionError) as error:
            problems.append(Problem(subject=path, text=f"its result cannot be read: {error}"))
    return Kept(one.attachment, path, one.parameters.netns, _written(path), configured, result)


@lru_cache(maxsize=64)
def _configuration_in(config: bytes) -> Configured:
    """What a cache's `config` has; the same for all containers of a network. Raises CniError."""
    return _configured(parse_network(config))


def _written(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0
