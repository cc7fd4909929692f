"""Starting the server, and starting it anew in the same process with the same sockets."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING

from cni_py.kernel import roots
from cni_py.kernel.sockets import listen, passed_sockets

from . import sockets
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
        own = "CNI_PY_OWN_SOCKETS" in os.environ
    else:
        calls = listen(path, socket.SOCK_SEQPACKET)
        metrics = listen(metrics_path, socket.SOCK_STREAM)
        own = True
    # Once: who is root there, and what is mounted, is the process's affair for as long as it lives.
    host_root = None if settings.host_root is None else roots.of_process(settings.host_root)
    if not Server(calls, metrics, settings, (path, metrics_path) if own else (), host_root).run():
        return
    # Another one that comes before the new program listens to signals changes nothing.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    environ = sockets.pass_on([one for one in (calls, metrics) if one is not None])
    if own:
        environ["CNI_PY_OWN_SOCKETS"] = "1"
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
