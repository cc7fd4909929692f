"""The warm server: whether it listens, which version it is, and what its counters say."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from cni_py import __version__
from cni_py.server.metrics import samples
from cni_py.server.settings import fetch

from .finding import fine, look, note, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni_py.server.metrics import Sample

    from .examinations import Places
    from .finding import Finding

_SHOWN = 5
_SECONDS = 5.0


def examine(places: Places) -> Iterator[Finding]:
    """Ask the server, if there is one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        # A server that hangs takes no connection.
        probe.settimeout(_SECONDS)
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
        counted = samples(fetch(path))
    except OSError as error:
        yield note(f"no metrics at {path} ({error.strerror})")
        return
    for version in (one.labels["version"] for one in counted if one.name == "cni_py_info"):
        if version != __version__:
            remedy = "systemctl restart cni-py.service"
            yield look(f"the server is version {version}, installed is {__version__}", remedy)
    calls = [one for one in counted if one.name == "cni_py_calls_total"]
    failed = sorted((one for one in calls if one.labels["code"]), key=lambda one: -one.value)
    total, bad = (f"{sum(one.value for one in some):.0f}" for some in (calls, failed))
    if not failed:
        yield fine(f"the server has served {total} calls, none failed")
    else:
        most = ", ".join(map(_told, failed[:_SHOWN]))
        yield note(f"{bad} of the server's {total} calls have failed ({most})", "cni-py metrics")
    lost = sum(one.value for one in counted if one.name == "cni_py_lost_workers_total")
    if lost:
        remedy = "journalctl -u cni-py.service"
        yield look(f"{lost:.0f} workers died before their call had ended", remedy)


def _told(calls: Sample) -> str:
    of = calls.labels
    return f"{of['plugin']} {of['verb']} code {of['code']}: {calls.value:.0f}"
