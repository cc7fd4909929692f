"""A worker: forked ahead with everything loaded, it serves one call and ends."""

from __future__ import annotations

import array
import fcntl
import gc
import json
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import msgspec

from cni_py import skel
from cni_py.kernel import netns, steps
from cni_py.spec.errors import CniError, Code

from . import handover, preload

if TYPE_CHECKING:
    from types import FrameType

    from .handover import Handover

_F_SETSIG = 10
_STDIN, _STDOUT, _STDERR = range(3)
MAX_REPORT_BYTES = 64 * 1024


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker tells the server of its call; code -1 is success."""

    plugin: str = ""
    verb: str = ""
    code: int = -1
    milliseconds: float = 0.0
    container: str = ""
    network: str = ""
    steps: dict[str, float] = {}
    traceparent: str = ""


def serve_one(channel: socket.socket) -> NoReturn:
    """Wait for a connection on `channel`, serve its call, report to the server, end the process."""
    status = 1
    try:
        gc.disable()
        preload.rehearse()
        steps.take()
        connection = _receive_connection(channel)
        if connection is not None:
            _serve(connection, channel)
        status = 0
    except BaseException as error:  # noqa: BLE001 - nothing may run on in a forked child
        sys.stderr.write(f"cni-py worker: {type(error).__name__}: {error}\n")
    os._exit(status)


def _receive_connection(channel: socket.socket) -> socket.socket | None:
    """The next connection; None when the server wants this worker no more."""
    fds = array.array("i")
    data, ancillary, _, _ = channel.recvmsg(
        1, socket.CMSG_SPACE(fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    if not data or not ancillary:
        return None
    fds.frombytes(ancillary[0][2])
    return socket.socket(fileno=fds[0])


def _serve(connection: socket.socket, channel: socket.socket) -> None:
    try:
        call = handover.receive(connection)
    except ValueError as error:
        refuse(connection, Code.INVALID_ENVIRONMENT, f"the call was not understood: {error}")
        channel.send(msgspec.json.encode(Report(code=int(Code.INVALID_ENVIRONMENT))))
        return
    if call.name not in skel.EXECUTABLES:
        refuse(connection, Code.INVALID_ENVIRONMENT, f'there is no plugin "{call.name}"')
        channel.send(msgspec.json.encode(Report(code=int(Code.INVALID_ENVIRONMENT))))
        return
    start = time.monotonic()
    connection.send(handover.BEGUN)
    output = _take_over(call, connection)
    status = skel.run(call.name, call.environ, _STDIN, output)
    # From here on the caller's end is expected.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    _let_go(call)
    _quietly(connection, handover.ENDED + bytes((status,)))
    told = Report(
        plugin=call.name,
        verb=call.environ.get("CNI_COMMAND", ""),
        code=output.code,
        milliseconds=round((time.monotonic() - start) * 1000, 3),
        container=call.environ.get("CNI_CONTAINERID", ""),
        network=output.network,
        steps=steps.take(),
        traceparent=call.environ.get("TRACEPARENT", ""),
    )
    channel.send(msgspec.json.encode(told))


class _CallersOutput(skel.Output):
    """The caller's standard output; the launcher is told before anything is written to it."""

    def __init__(self, fd: int, connection: socket.socket) -> None:
        super().__init__(fd)
        self._connection = connection

    def write(self, data: bytes) -> None:
        _quietly(self._connection, handover.WRITING)
        super().write(data)


def _take_over(call: Handover, connection: socket.socket) -> _CallersOutput:
    """Make this process the caller's: streams, folder, namespace, environment, signals."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    stdout = call.stdout if call.stdout >= 0 else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    if call.stdin >= 0:
        os.dup2(call.stdin, _STDIN)
    else:
        os.close(_STDIN)
    stderr = call.stderr if call.stderr >= 0 else null
    os.dup2(stderr, _STDERR)
    # Whatever prints by mistake goes to stderr: stdout is for the one document (O-06).
    os.dup2(stderr, _STDOUT)
    os.fchdir(call.cwd)
    netns.enter_for_good(call.own_netns)
    path = call.environ.get("CNI_NETNS", "")
    if path:
        netns.provide(path, call.container_netns)
    os.environ.clear()
    os.environ.update(call.environ)
    _watch(connection)
    return _CallersOutput(stdout, connection)


def _let_go(call: Handover) -> None:
    """Close what is the caller's before it hears of the end: it waits for the end of its pipes, and
    a namespace lives as long as somebody has it open.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (_STDIN, _STDOUT, _STDERR):
        os.dup2(null, fd)
    for fd in call.descriptors:
        os.close(fd)


def _watch(connection: socket.socket) -> None:
    """Let the end of the caller, or a signal to it, interrupt the call (SIGIO, fcntl(2))."""
    signal.signal(signal.SIGTERM, skel.interrupted)
    connection.settimeout(0.0)

    def news(_signal: int, _frame: FrameType | None) -> None:
        try:
            message = connection.recv(2)
        except BlockingIOError:
            return
        if message[:1] == handover.SIGNAL and len(message) > 1:
            number = signal.Signals(message[1])
            raise CniError(Code.TRY_AGAIN_LATER, f"interrupted by {number.name}")
        if not message:
            signal.signal(signal.SIGIO, signal.SIG_IGN)
            raise CniError(Code.TRY_AGAIN_LATER, "interrupted: the caller is gone")

    signal.signal(signal.SIGIO, news)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, _F_SETSIG, signal.SIGIO)
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)
    # What came before the signal was set up.
    signal.raise_signal(signal.SIGIO)


def refuse(connection: socket.socket, code: Code, msg: str, details: str = "") -> None:
    """Have the launcher print an error, and end."""
    document = {"cniVersion": "1.1.0", "code": int(code), "msg": msg}
    if details:
        document["details"] = details
    _quietly(connection, handover.REFUSED + json.dumps(document, indent=4).encode())


def _quietly(connection: socket.socket, message: bytes) -> None:
    """Answer a caller that may be gone."""
    try:
        connection.send(message, socket.MSG_NOSIGNAL)
    except OSError:
        return
