"""The plugin's side of the connection to the daemon."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, TypeVar

from cni_py.kernel import interruption, proc
from cni_py.spec.errors import CniError, Code
from cni_py.spec.limits import MOST_DELEGATE_BYTES

from . import protocol
from .protocol import Begun, Failed

if TYPE_CHECKING:
    from .protocol import Answer, Asked

A = TypeVar("A")

# The daemon answers at once; an acquisition takes as long as it says, and a little.
_ANSWER_SECONDS = 10.0
_GRACE_SECONDS = 5.0
_READ_BYTES = 1 << 16
# pid, uid, gid.
_CREDENTIALS = struct.Struct("iII")


class NoDaemonError(CniError):
    """Nobody listens at the socket."""

    def __init__(self, path: str, error: OSError) -> None:
        msg = f"error dialing DHCP daemon: {path}: {error.strerror}"
        details = "start it with `dhcp daemon`, or the unit cni-dhcp.socket"
        super().__init__(Code.TRY_AGAIN_LATER, msg, details)


class Caller:
    """A connection to the daemon; close it, or use it as a context manager."""

    def __init__(self, path: str) -> None:
        """Raises CniError: NoDaemonError where nobody listens."""
        self._path = path
        self._read = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_ANSWER_SECONDS)
        try:
            with interruption.waiting():
                self._socket.connect(path)
        except (BlockingIOError, TimeoutError):
            self.close()
            raise self._late("take the call") from None
        except OSError as error:
            self.close()
            if error.errno is None:
                # A path that no socket can have.
                error = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            raise NoDaemonError(path, error) from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; a lease that was not kept is given back."""
        self._socket.close()

    def ask(self, asked: Asked, wanted: type[A]) -> A:
        """Send a request and wait for its answer. Raises its CniError, or Interrupted."""
        self.tell(asked)
        answer = self._answer(_ANSWER_SECONDS)
        if isinstance(answer, Begun):
            answer = self._answer(answer.seconds + _GRACE_SECONDS)
        if not isinstance(answer, wanted):
            raise self._strange("")
        return answer

    def tell(self, asked: Asked) -> None:
        """Send a message that has no answer, or whose answer is read later."""
        try:
            with interruption.waiting():
                self._socket.sendall(protocol.line(asked))
        except TimeoutError:
            raise self._late("take the call") from None
        except OSError:
            # It has said why, or its answer is missed.
            return

    def _answer(self, seconds: float) -> Answer:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._read:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late(f"answer within {seconds:.0f} s")
            self._socket.settimeout(left)
            try:
                with interruption.waiting():
                    data = self._socket.recv(_READ_BYTES)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            if not data:
                msg = f"the DHCP daemon at {self._path} ended during the call"
                raise CniError(Code.TRY_AGAIN_LATER, msg)
            self._read += data
            if len(self._read) > MOST_DELEGATE_BYTES:
                raise self._strange("")
        line, _, rest = bytes(self._read).partition(b"\n")
        self._read = bytearray(rest)
        try:
            answer = protocol.read_answer(line)
        except ValueError:
            raise self._strange(line.decode(errors="replace")) from None
        if isinstance(answer, Failed):
            raise answer.error()
        return answer

    def _late(self, what: str) -> CniError:
        msg = f"the DHCP daemon at {self._path} did not {what}"
        return CniError(Code.TRY_AGAIN_LATER, msg, self._listener())

    def _listener(self) -> str:
        """Who listens; with systemd's socket that is systemd (unix(7), SO_PEERCRED)."""
        try:
            peer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return f"it is {proc.described(_CREDENTIALS.unpack(peer)[0])}"
        except OSError:
            return "its process may be overloaded"

    def _strange(self, line: str) -> CniError:
        msg = f"what listens at {self._path} is not cni-py's DHCP daemon"
        details = f"it said {line[:80].strip()!r}" if line else "it gave another answer"
        if line.startswith("HTTP/"):
            details = "the reference plugin's daemon does; stop it and start `dhcp daemon` anew"
        return CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details)
