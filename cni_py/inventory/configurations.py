"""Networks' configurations, as runtimes read them, and libcni's cache of results."""

from __future__ import annotations

import os
from base64 import b64decode
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cni_py.ipam import host_local
from cni_py.kernel import state_files
from cni_py.spec import conversion
from cni_py.spec.attachment import Attachment
from cni_py.spec.config import decode_config, decode_json
from cni_py.spec.errors import CniError
from cni_py.spec.results import Result

from .model import Network, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.ipam.ranges import RangeSet

FOLDER = "/etc/cni/net.d"
RESULTS = "/var/lib/cni/results"
_SUFFIXES = (".conf", ".conflist", ".json")
_KIND = "cniCacheV1"
_DEFAULT_BRIDGE = "cni0"
_PARENTED = ("macvlan", "ipvlan", "vlan")


class Configured(NamedTuple):
    """A configuration that makes sense: the network, and each plugin's configuration."""

    network: Network
    plugins: tuple[dict[str, Any], ...]

    def ranges(self) -> tuple[RangeSet, ...]:
        """host-local's range sets; none where another plugin gives addresses, or they are wrong."""
        for one in self.plugins:
            ipam = one.get("ipam")
            if not isinstance(ipam, dict) or ipam.get("type") != host_local.NAME:
                continue
            try:
                config = decode_config({**one, "name": self.network.name}, host_local.Config)
                return host_local.sets_of(config, self.network.cni_version)
            except CniError:
                return ()
        return ()

    def data_dir(self) -> str:
        """host-local's folder; `""` where it is not configured."""
        for one in self.plugins:
            ipam = one.get("ipam")
            if isinstance(ipam, dict) and ipam.get("type") == host_local.NAME:
                folder = ipam.get("dataDir")
                return folder if isinstance(folder, str) else ""
        return ""


class Cached(NamedTuple):
    """What libcni keeps of an attachment; `since` is when it was written, in epoch seconds."""

    attachment: Attachment
    path: str
    netns: str
    since: float
    configured: Configured | None
    result: Result
    arguments: dict[str, Any]


class _Cache(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    kind: str = ""
    container_id: str = ""
    if_name: str = ""
    network_name: str = ""
    netns: str = ""
    config: str = ""
    capability_args: dict[str, Any] | None = None
    result: Any = None


def configured(problems: list[Problem], folder: str = FOLDER) -> list[Configured]:
    """The configurations in a folder, in its order; what cannot be read is noted."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            problems.append(Problem(subject=folder, text=f"cannot be listed: {error.strerror}"))
        return []
    found = []
    for name in names:
        path = f"{folder}/{name}"
        if not name.endswith(_SUFFIXES):
            continue
        try:
            found.append(_configuration(_content(path), path))
        except (OSError, ValueError) as error:
            problems.append(Problem(subject=path, text=f"cannot be read: {error}"))
    return found


def _content(path: str) -> bytes:
    """A configuration may be a link, unlike our own files."""
    try:
        return state_files.content(os.path.realpath(path))
    except state_files.DamagedError as error:
        raise ValueError(str(error)) from None


def _configuration(text: bytes, path: str) -> Configured:
    """Raises ValueError for what is no configuration."""
    raw = decode_json(text)
    if not isinstance(raw, dict):
        raise ValueError("it is no JSON object")
    plugins = raw.get("plugins", [raw])
    name = raw.get("name")
    if not isinstance(plugins, list) or not all(isinstance(one, dict) for one in plugins):
        raise ValueError("plugins is no list of objects")
    if not isinstance(name, str) or not name:
        raise ValueError("it has no name")
    version = raw.get("cniVersion")
    first = plugins[0] if plugins else {}
    ipam = first.get("ipam")
    network = Network(
        name=name,
        file=path,
        cni_version=version if isinstance(version, str) else "",
        plugins=tuple(str(one.get("type", "")) for one in plugins),
        bridge=_text(first, "bridge") or _DEFAULT_BRIDGE if first.get("type") == "bridge" else "",
        parent=_text(first, "master") if first.get("type") in _PARENTED else "",
        ipam=_text(ipam, "type") if isinstance(ipam, dict) else "",
    )
    return Configured(network, tuple(plugins))


def _text(config: dict[str, Any], key: str) -> str:
    value = config.get(key)
    return value if isinstance(value, str) else ""


def cached(problems: list[Problem], folder: str = RESULTS) -> Iterator[Cached]:
    """What libcni's cache has of attachments; what cannot be read is noted.

    The file's name is not trusted: its parts may have dashes (spec.md K-08).
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            problems.append(Problem(subject=folder, text=f"cannot be listed: {error.strerror}"))
        return
    for name in names:
        path = f"{folder}/{name}"
        try:
            since = os.lstat(path).st_mtime
            one = msgspec.json.decode(state_files.content(path), type=_Cache)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError, state_files.DamagedError) as error:
            problems.append(Problem(subject=path, text=f"cannot be read: {error}"))
            continue
        # Results alone, as libcni kept them before 1.0, do not say whose they are.
        if one.kind == _KIND and one.container_id and one.if_name and one.network_name:
            yield _cached(one, path, since, problems)


@lru_cache(maxsize=64)
def _configuration_in(config: str) -> Configured:
    """What a cache's key `config` has; the same for all containers of a network.

    Raises ValueError.
    """
    return _configuration(b64decode(config), "")


def _cached(one: _Cache, path: str, since: float, problems: list[Problem]) -> Cached:
    attachment = Attachment(one.network_name, one.container_id, one.if_name)
    configured = None
    try:
        configured = _configuration_in(one.config) if one.config else None
    except ValueError as error:
        problems.append(Problem(subject=path, text=f"its configuration cannot be read: {error}"))
    result = Result()
    if one.result is not None:
        try:
            result = conversion.from_wire(one.result, "")
        except (ValueError, RecursionError) as error:
            problems.append(Problem(subject=path, text=f"its result cannot be read: {error}"))
    arguments = one.capability_args or {}
    return Cached(attachment, path, one.netns, since, configured, result, arguments)
