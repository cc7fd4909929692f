"""containerd beside the plugins: whose executables it runs, and whether it takes their results."""

from __future__ import annotations

import os
import shutil
import tomllib
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any

from cni_py.ipam.delegation import is_ours
from cni_py.kernel import processes
from cni_py.skel import EXECUTABLES

from .finding import broken, fine, look, note, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .examinations import Places
    from .finding import Finding

_SOCKET = "/run/containerd/containerd.sock"
_DUMP = ("containerd", "config", "dump")
_SECONDS = 10
_BYTES = 1 << 20
# The CRI's plugin of containerd 1.x, and where its part for networks went in 2.x.
_FIRST, _SECOND = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"
# The newest that the libcni of containerd 1.x can read.
_NEWEST_OF_FIRST = (1, 0, 0)


def examine(places: Places) -> Iterator[Finding]:
    """Look at what containerd says that it is configured to, with its own defaults."""
    if not os.path.exists(_SOCKET):
        yield note("containerd is not running")
        return
    if shutil.which(_DUMP[0]) is None:
        yield unseen("containerd runs, and its program is not in PATH to ask for its configuration")
        return
    try:
        dumped = _dumped()
    except (OSError, TimeoutExpired, ValueError) as error:
        yield unseen(f"containerd does not tell its configuration: {error}", " ".join(_DUMP))
        return
    if {"cri", _FIRST} & set(dumped.get("disabled_plugins", ())):
        yield note("containerd's CRI is disabled: no kubelet can use it")
        return
    plugins = dumped.get("plugins", {})
    cni = plugins.get(_SECOND, plugins.get(_FIRST, {})).get("cni", {})
    folders = cni.get("bin_dirs") or [cni.get("bin_dir") or "/opt/cni/bin"]
    yield from _executables(places, folders, is_first=_SECOND not in plugins)
    net_dir = cni.get("conf_dir", places.net_dir)
    if not _same(net_dir, places.net_dir):
        text = f"containerd reads configurations from {net_dir}, not from {places.net_dir}"
        yield look(text, f"cni-py doctor --net-dir {net_dir}")
    elif _SECOND not in plugins:
        yield from _versions(places, cni.get("max_conf_num", 1))


def _dumped() -> dict[str, Any]:
    """Raises OSError, TimeoutExpired, or ValueError with what was said instead."""
    done = processes.run(_DUMP, b"", seconds=_SECONDS, most=_BYTES)
    if done.returncode != 0:
        raise ValueError(done.stderr.decode(errors="replace").strip() or "it has failed")
    return tomllib.loads(done.stdout.decode(errors="replace"))


def _executables(places: Places, folders: Sequence[str], *, is_first: bool) -> Iterator[Finding]:
    """The first folder that has a plugin is the one that counts."""
    run = {
        name: path
        for name in EXECUTABLES
        for path in [next(filter(os.path.exists, (f"{one}/{name}" for one in folders)), "")]
        if path
    }
    shown = ", ".join(folders)
    if not run:
        text = f"containerd looks for plugins in {shown}, and finds none"
        yield broken(text, f"cni-py install {folders[-1]}, or {_naming(places, is_first)}")
        return
    others = [path for path in run.values() if not is_ours(path)]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        text = f"containerd runs {others[0]}{more}, not cni-py's"
        yield look(text, _naming(places, is_first))
    else:
        yield fine(f"containerd runs cni-py's plugins in {shown}")


def _naming(places: Places, is_first: bool) -> str:  # noqa: FBT001 - handed through
    """What to write into containerd's configuration."""
    if is_first:
        key = f'plugins."{_FIRST}".cni.bin_dir = "{places.folder}"'
    else:
        key = f'plugins."{_SECOND}".cni.bin_dirs = ["{places.folder}"]'
    return f"{key} in /etc/containerd/config.toml, and restart containerd"


def _versions(places: Places, most: int) -> Iterator[Finding]:
    """containerd 1.x refuses a result of a protocol that it does not know."""
    read = sorted(places.configured, key=lambda one: os.path.basename(one.network.file))
    for one in read[: most or None]:
        version = tuple(int(part) for part in one.network.cni_version.split(".") if part.isdigit())
        if version > _NEWEST_OF_FIRST:
            text = (
                f"{one.network.file} has cniVersion {one.network.cni_version}, whose results this"
            )
            yield broken(f"{text} containerd refuses", 'set its cniVersion to "1.0.0"')


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
