"""The root file system of the DaemonSet's image, without a registry and without a network.

conf/kubernetes/Containerfile builds it from Debian's packages. Here it is this machine's
interpreter with the libraries that it is linked with, cni-py as it is installed and what it needs,
and libnftables: no shell, no other program.
"""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFIX = "usr/local"
PROGRAM = f"/{PREFIX}/bin/cni-py"
_FOLDERS = ("proc", "sys", "dev", "tmp", "etc/cni-py", "run/cni-py", "run/own", "run/network")
_FOLDERS += ("node/bin", "node/net.d", "var/lib/cni/cni-py", "etc/cni-py/etcd")
_LIBRARY = "libnftables.so.1"
_UNWANTED = shutil.ignore_patterns(
    "__pycache__", "test", "tests", "idlelib", "tkinter", "site-packages", "config-*", "ensurepip"
)
# As container runtimes set them for every container (runtime-spec, config-linux.md).
_MASKED = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def build(root: Path) -> None:
    """Fill an empty folder."""
    for one in _FOLDERS:
        (root / one).mkdir(parents=True)
    place = root / PREFIX
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = place / "lib" / version
    shutil.copytree(sysconfig.get_paths()["stdlib"], library, ignore=_UNWANTED)
    (place / "bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), place / "bin" / version)
    packages = library / "site-packages"
    packages.mkdir()
    for one in _needed("cni-py", "etcd"):
        _copy_distribution(one, packages)
    programs = [place / "bin" / version, *library.rglob("*.so")]
    _copy_libraries([*programs, _nftables()], root)
    program = root / PROGRAM.lstrip("/")
    program.write_text(f"#!/{PREFIX}/bin/{version} -P\nfrom cni_py.command import main\nmain()\n")
    program.chmod(0o755)


def _needed(name: str, extra: str) -> set[str]:
    """A distribution with an extra of it, and those that it requires."""
    found, left = set(), [name]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            required = map(Requirement, distribution(one).requires or [])
            left += [each.name for each in required if _applies(each, extra if one == name else "")]
    return found


def _applies(required: Requirement, extra: str) -> bool:
    return required.marker is None or required.marker.evaluate({"extra": extra})


def _copy_distribution(name: str, packages: Path) -> None:
    given = distribution(name)
    for one in given.files or ():
        if not str(one).startswith(".."):
            target = packages / one
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(given.locate_file(one)), target)


def _nftables() -> Path:
    """Where the loader finds the library."""
    ctypes.CDLL(_LIBRARY)
    maps = Path("/proc/self/maps").read_text()
    (found,) = set(re.findall(r"\S*/libnftables\.so\S*", maps))
    return Path(found)


def _copy_libraries(programs: Iterable[Path], root: Path) -> None:
    """What programs are linked with, under the names that the loader looks for."""
    listed = subprocess.run(
        ["ldd", *map(str, programs)], capture_output=True, text=True, check=True
    ).stdout
    found = set(re.findall(r"(?:=> |^\t)(/\S+) \(", listed, re.MULTILINE))
    folder = _nftables().parent
    found |= {str(folder / _LIBRARY)}
    for one in found:
        target = root / one.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(one, target)


def bundle(
    folder: Path,
    root: Path,
    container: Mapping[str, Any],
    arguments: list[str],
    binds: Mapping[str, str],
    environ: Mapping[str, str],
) -> None:
    """A bundle (runtime-spec, bundle.md) of a pod's container in the host's namespaces.

    `binds` are files of the host by their places in the container.
    """
    context = container["securityContext"]
    given = [f"CAP_{one}" for one in context["capabilities"].get("add", ())]
    kinds = ("bounding", "effective", "permitted")
    read_only = {one["mountPath"] for one in container["volumeMounts"] if one.get("readOnly")}
    mounts = [
        _mount("/proc", "proc"),
        _mount("/dev", "tmpfs", "mode=755"),
        _mount("/dev/shm", "tmpfs", "mode=1777"),
        _mount("/sys", "sysfs", "ro"),
    ]
    for place, source in binds.items():
        how = ["rbind", "rprivate", "ro" if place in read_only else "rw"]
        mounts.append({"destination": place, "type": "bind", "source": source, "options": how})
    configuration = {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": context["readOnlyRootFilesystem"]},
        "process": {
            "args": [PROGRAM, *arguments],
            "cwd": "/",
            "env": [f"{key}={value}" for key, value in environ.items()],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": not context["allowPrivilegeEscalation"],
            "capabilities": dict.fromkeys(kinds, given),
        },
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
        },
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(configuration))


def _mount(place: str, kind: str, *options: str) -> dict[str, Any]:
    safe = ["nosuid", "nodev", "noexec"] if kind != "tmpfs" else ["nosuid"]
    return {"destination": place, "type": kind, "source": kind, "options": [*safe, *options]}
