"""The warm server: whether it listens, which version it is, and what its counters say."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from cni_py import __version__
from cni_py.server.settings import fetch

from .finding import fine, look, note, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .examinations import Places
    from .finding import Finding

_CALLS = re.compile(
    r'^cni_py_calls_total\{plugin="([^"]*)",verb="([^"]*)",code="([^"]*)"\} (\d+)$', re.MULTILINE
)
_LOST = re.compile(r"^cni_py_lost_workers_total (\d+)$", re.MULTILINE)
_VERSION = re.compile(r'^cni_py_info\{version="([^"]*)"\} 1$', re.MULTILINE)
# Of a runtime's everyday: a container that is not there, try again later, a plugin not ready.
_SHOWN = 5


def examine(places: Places) -> Iterator[Finding]:
    """Ask the server, if there is one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(places.socket))
        except PermissionError:
            yield unseen(f"only root can ask the server at {places.socket}", "sudo cni-py doctor")
            return
        except OSError as error:
            text = f"no server listens at {places.socket} ({error.strerror})"
            remedy = "systemctl enable --now cni-py.socket, or cni-py serve; calls work without it"
            yield look(text, remedy)
            return
    yield fine(f"a server listens at {places.socket}")
    yield from _counted(places.metrics_socket)


def _counted(path: Path) -> Iterator[Finding]:
    try:
        text = fetch(path)
    except OSError as error:
        yield note(f"no metrics at {path} ({error.strerror})")
        return
    version = _VERSION.search(text)
    if version is not None and version[1] != __version__:
        remedy = "systemctl restart cni-py.service"
        yield look(f"the server is version {version[1]}, installed is {__version__}", remedy)
    calls = [(*one[:3], int(one[3])) for one in _CALLS.findall(text)]
    failed = sorted((one for one in calls if one[2]), key=lambda one: -one[3])
    total, bad = sum(one[3] for one in calls), sum(one[3] for one in failed)
    if not failed:
        yield fine(f"the server has served {total} calls, none failed")
    else:
        most = ", ".join(
            f"{plugin} {verb} code {code}: {number}"
            for plugin, verb, code, number in failed[:_SHOWN]
        )
        yield note(f"{bad} of the server's {total} calls have failed ({most})", "cni-py metrics")
    lost = _LOST.search(text)
    if lost is not None and int(lost[1]):
        remedy = "journalctl -u cni-py.service"
        yield look(f"{lost[1]} workers died before their call had ended", remedy)
