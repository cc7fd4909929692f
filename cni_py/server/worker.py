"""A worker: forked ahead with everything loaded, it serves calls, one after another.

After a call that ended well the process is as it was before; after any other it ends.
"""

from __future__ import annotations

import array
import errno
import fcntl
import gc
import json
import os
import signal
import socket
import sys
import time
from importlib.machinery import BuiltinImporter, FrozenImporter
from typing import TYPE_CHECKING, NoReturn

import msgspec

from cni_py import skel
from cni_py.kernel import interruption, netns, roots, sockets, steps
from cni_py.kernel.errors import KernelError
from cni_py.kernel.nftables import forget_contexts
from cni_py.spec.environment import VERBS
from cni_py.spec.errors import CniError, Code

from . import handover, preload

if TYPE_CHECKING:
    from types import FrameType

    from .handover import Handover

_F_SETSIG = 10
_STDIN, _STDOUT, _STDERR = range(3)
MAX_REPORT_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 256

# What the server says on a worker's channel: a connection comes with it, a file's name follows it.
SERVE = b"C"
CARRY_OUT = b"D"
_MESSAGE_BYTES = 256


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker tells the server of its call; code -1 is success.

    `again`: the worker waits for another call. `deferred` names a DEL that a launcher had written
    down, and `error` is why that is to be tried again. `elsewhere` is why a caller was not served.
    """

    plugin: str = ""
    verb: str = ""
    code: int = -1
    milliseconds: float = 0.0
    container: str = ""
    network: str = ""
    steps: dict[str, float] = {}
    traceparent: str = ""
    deferred: str = ""
    error: str = ""
    elsewhere: str = ""
    again: bool = False


def serve_calls(
    channel: socket.socket, limit: int, host_root: roots.Root | None, *, rehearse: bool
) -> NoReturn:
    """Serve the calls whose connections come on `channel`, at most `limit`; end the process.

    `host_root` is where deferred DELs are carried out; `rehearse` where no call is waiting yet.
    """
    status = 1
    try:
        gc.disable()
        if rehearse:
            preload.rehearse()
            steps.take()
        home = _Home(host_root)
        for number in range(1, limit + 1):
            given, last = _receive(channel), number == limit
            if given is None:
                break
            if isinstance(given, str):
                again = _carry_out(given, channel, home, last=last)
            else:
                again = _serve(given, channel, home, last=last)
            if not again:
                break
        status = 0
    except BaseException as error:  # noqa: BLE001 - nothing may run on in a forked child
        sys.stderr.write(f"cni-py worker: {type(error).__name__}: {error}\n")
    os._exit(status)


class _Home:
    """What the process is between calls: in the server's root and namespace, its environment."""

    def __init__(self, host_root: roots.Root | None) -> None:
        self._host_root = host_root
        self._root = roots.own_identity()
        self._finders = list(sys.meta_path)
        self._netns = os.open(netns.OWN, os.O_RDONLY | os.O_CLOEXEC)
        self._stderr = os.dup(_STDERR)
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._environ = dict(os.environ)
        self.identity = netns.own_identity()

    def visit(self, call: Handover, connection: socket.socket) -> str:
        """Be where the caller's paths lead to his files; why that cannot be, `""` if it can.

        A launcher of the release before sends no root: such a caller has to see this process's.
        """
        if call.root < 0:
            same = sockets.sees_the_same_files(connection)
            return "" if same else "the caller has another root, and its launcher does not send it"
        try:
            if roots.identity(call.root) != self._root:
                self._enter(roots.Root(call.root, call.mounts))
                # In a pid namespace beside or below this one, its /proc does not show this process.
                os.stat(netns.OWN)
        except (OSError, CniError) as error:
            self._leave()
            return f"the caller has another root: {_reason(error)}"
        return ""

    def visit_host(self) -> None:
        """Be where the host's files are, for what has no caller. Raises KernelError."""
        if self._host_root is not None:
            self._enter(self._host_root)

    def _enter(self, root: roots.Root) -> None:
        roots.enter(root)
        # A module that is not loaded yet would be the caller's, or none.
        sys.meta_path[:] = [BuiltinImporter, FrozenImporter]

    def _leave(self) -> None:
        roots.leave()
        sys.meta_path[:] = self._finders

    def let_go(self, call: Handover) -> None:
        """Close what is the caller's before it hears of the end.

        It waits for the end of its pipes, and a namespace lives as long as somebody has it open.
        """
        for fd in (_STDIN, _STDOUT):
            os.dup2(self._null, fd)
        os.dup2(self._stderr, _STDERR)
        for fd in call.descriptors:
            os.close(fd)
        netns.forget_provided()
        # Mounts cannot be taken down while somebody works in them.
        self._leave()

    def come_back(self) -> None:
        """Be what the process was before the call."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._leave()
        netns.enter_for_good(self._netns)
        # A namespace that is gone can give its inode to another one.
        forget_contexts(keep=self.identity)
        os.environ.clear()
        os.environ.update(self._environ)


def _receive(channel: socket.socket) -> socket.socket | str | None:
    """The next connection, or the name of a deferred DEL; None when there is nothing more to do."""
    fds = array.array("i")
    data, ancillary, _, _ = channel.recvmsg(
        _MESSAGE_BYTES, socket.CMSG_SPACE(fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    if data.startswith(CARRY_OUT):
        return data[len(CARRY_OUT) :].decode()
    if not data or not ancillary:
        return None
    fds.frombytes(ancillary[0][2])
    return socket.socket(fileno=fds[0])


def _serve(connection: socket.socket, channel: socket.socket, home: _Home, *, last: bool) -> bool:
    """Serve one call; whether the process can serve another."""
    try:
        call = handover.receive(connection)
    except handover.OtherVersionError:
        # The launcher calls again, with one that is among these.
        _quietly(connection, handover.VERSIONS)
        connection.close()
        return _is_told(channel, Report(verb="version", again=not last)) and not last
    except ValueError as error:
        refuse(connection, Code.INVALID_ENVIRONMENT, f"the call was not understood: {error}")
        channel.send(msgspec.json.encode(Report(code=int(Code.INVALID_ENVIRONMENT))))
        return False
    if call.name not in skel.EXECUTABLES:
        refuse(connection, Code.INVALID_ENVIRONMENT, f'there is no plugin "{_shown(call.name)}"')
        channel.send(msgspec.json.encode(Report(code=int(Code.INVALID_ENVIRONMENT))))
        return False
    elsewhere = home.visit(call, connection)
    if elsewhere:
        # Its executable does the call itself where the server has not begun.
        for fd in call.descriptors:
            os.close(fd)
        if call.version > 1:
            _quietly(connection, handover.NOT_SERVED + elsewhere.encode())
        connection.close()
        told = Report(plugin=call.name, verb="elsewhere", elsewhere=elsewhere, again=not last)
        return _is_told(channel, told) and not last
    start = time.monotonic()
    connection.send(handover.BEGUN)
    output = _take_over(call, connection)
    status = skel.run(call.name, call.environ, _STDIN, output)
    # From here on the caller's end is expected.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    milliseconds = round((time.monotonic() - start) * 1000, 3)
    home.let_go(call)
    output.close()
    _quietly(connection, handover.ENDED + bytes((status,)))
    connection.close()
    again = status == 0 and not last
    if again:
        home.come_back()
    told = Report(
        plugin=call.name,
        verb=_verb(call.environ.get("CNI_COMMAND", "")),
        code=output.code,
        milliseconds=milliseconds,
        container=_shown(call.environ.get("CNI_CONTAINERID", "")),
        network=_shown(output.network),
        steps=steps.take(),
        traceparent=_shown(call.environ.get("TRACEPARENT", "")),
        again=again,
    )
    return _is_told(channel, told) and again


def _carry_out(name: str, channel: socket.socket, home: _Home, *, last: bool) -> bool:
    """Carry out a deferred DEL; whether the process can serve another call."""
    start = time.monotonic()
    interruption.forget()
    signal.signal(signal.SIGTERM, skel.interrupted)
    try:
        home.visit_host()
        carried = skel.carry_out_deferred(name)
    except CniError as error:
        carried = skel.Carried(error=error)
    again = carried.error is None and not last
    if again:
        home.come_back()
    told = Report(
        plugin=_shown(carried.plugin),
        verb="DEL",
        code=-1 if carried.error is None else carried.error.code,
        milliseconds=round((time.monotonic() - start) * 1000, 3),
        container=_shown(carried.container),
        network=_shown(carried.network),
        steps=steps.take(),
        deferred=name,
        error="" if carried.error is None else _shown(str(carried.error)) or "no message",
        again=again,
    )
    return _is_told(channel, told) and again


def _is_told(channel: socket.socket, told: Report) -> bool:
    """Tell the server of a call; False where it has executed itself anew meanwhile."""
    try:
        channel.send(msgspec.json.encode(told), socket.MSG_NOSIGNAL)
    except BrokenPipeError:
        return False
    return True


class _CallersOutput(skel.Output):
    """The caller's standard output; the launcher is told before anything is written to it."""

    def __init__(self, fd: int, connection: socket.socket) -> None:
        super().__init__(fd)
        self._connection = connection

    def close(self) -> None:
        """Let the caller's pipe end."""
        os.close(self._fd)

    def write(self, data: bytes) -> None:
        _quietly(self._connection, handover.WRITING)
        super().write(data)


def _take_over(call: Handover, connection: socket.socket) -> _CallersOutput:
    """Make this process the caller's: streams, folder, namespace, environment, signals."""
    # Writing to a stream that the caller does not have fails, as it would for the caller.
    stdout = os.dup(call.stdout) if call.stdout >= 0 else os.open(os.devnull, os.O_RDONLY)
    if call.stdin >= 0:
        os.dup2(call.stdin, _STDIN)
    else:
        os.close(_STDIN)
    if call.stderr >= 0:
        os.dup2(call.stderr, _STDERR)
    # Whatever prints by mistake goes to stderr: stdout is for the one document (O-06).
    os.dup2(_STDERR, _STDOUT)
    os.fchdir(call.cwd)
    netns.enter_for_good(call.own_netns)
    path = call.environ.get("CNI_NETNS", "")
    if path:
        netns.provide(path, call.container_netns)
    os.environ.clear()
    os.environ.update(call.environ)
    _watch(connection)
    return _CallersOutput(stdout, connection)


def _watch(connection: socket.socket) -> None:
    """Let the end of the caller, or a signal to it, interrupt the call (SIGIO, fcntl(2))."""
    interruption.forget()
    signal.signal(signal.SIGTERM, skel.interrupted)
    connection.settimeout(0.0)

    def news(_signal: int, _frame: FrameType | None) -> None:
        # One signal can stand for several messages.
        while True:
            try:
                message = connection.recv(2)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                signal.signal(signal.SIGIO, signal.SIG_IGN)
                interruption.note("interrupted: the caller is gone")
                return
            if message[:1] == handover.SIGNAL and len(message) > 1:
                interruption.note(f"interrupted by {_signal_name(message[1])}")

    signal.signal(signal.SIGIO, news)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, _F_SETSIG, signal.SIGIO)
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC)
    # What came before the signal was set up.
    signal.raise_signal(signal.SIGIO)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _verb(text: str) -> str:
    """A verb as metrics are labelled with it: what is none of them must not make a label each."""
    return text if text in VERBS else "other"


def _reason(error: OSError | CniError) -> str:
    """Why another root cannot be acted in, and what would help where that is known."""
    if isinstance(error, CniError):
        lacks = isinstance(error, KernelError) and error.errno == errno.EPERM
        return f"{error.msg}{', the server needs CAP_SYS_CHROOT' if lacks else ''}"
    return f"its /proc does not show the server ({error.strerror}), it is in another pid namespace"


def _shown(text: str) -> str:
    """What a caller has sent, fit for a report: short, and valid Unicode."""
    return text[:_SHOWN_CHARACTERS].encode(errors="replace").decode()


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
