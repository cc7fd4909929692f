"""Starting the server, and starting it anew in the same process with the same sockets."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING

from cni_py.kernel import roots
from cni_py.kernel.sockets import Place, listen, passed_sockets

from . import preload, sockets
from .serve import Server

if TYPE_CHECKING:
    from pathlib import Path

    from .settings import Settings


def start(path: Path, metrics_path: Path, settings: Settings) -> None:
    """Serve until SIGTERM. SIGHUP executes the program anew: an upgrade loses no call.

    Raises OSError when a socket cannot be had.
    """
    # One that comes before the server listens to signals changes nothing.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Each connection takes a descriptor, also while it waits.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    passed = passed_sockets()
    if passed:
        calls, metrics = passed[0], passed[1] if len(passed) > 1 else None
        own = os.environ.get("CNI_PY_OWN_SOCKETS", "")
    else:
        if settings.take_over:
            # The other one serves until this one can.
            preload.load()
        # First, for it says how far the other one is.
        metrics = listen(metrics_path, socket.SOCK_STREAM, take_over=settings.take_over)
        try:
            calls = listen(path, socket.SOCK_SEQPACKET, take_over=settings.take_over)
        except OSError:
            metrics_path.unlink(missing_ok=True)
            raise
        own = _described([Place.of(one) for one in (path, metrics_path)])
    # Once: who is root there, and what is mounted, is the process's affair for as long as it lives.
    host_root = None if settings.host_root is None else roots.of_process(settings.host_root)
    places = _places(own, path, metrics_path)
    if not Server(calls, metrics, settings, places, host_root).run():
        return
    # Another one that comes before the new program listens to signals changes nothing.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    environ = sockets.pass_on([one for one in (calls, metrics) if one is not None])
    if own:
        environ["CNI_PY_OWN_SOCKETS"] = own
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


def _described(places: list[Place]) -> str:
    """Which files are this server's, for itself after it has executed itself anew."""
    return " ".join(f"{one.device}:{one.inode}" for one in places)


def _places(described: str, *paths: Path) -> tuple[Place, ...]:
    numbers = [one.split(":") for one in described.split()]
    if not all(len(one) == 2 and one[0].isdigit() and one[1].isdigit() for one in numbers):
        # By a release that did not say which: those that are there.
        return tuple(Place.of(one) for one in paths if one.exists())
    return tuple(Place(path, int(a), int(b)) for path, (a, b) in zip(paths, numbers, strict=False))
