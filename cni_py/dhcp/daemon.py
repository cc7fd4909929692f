"""The daemon: one thread and one loop for all leases and all callers."""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cni_py.kernel.boot_clock import now
from cni_py.kernel.sockets import may_call
from cni_py.spec.errors import CniError, Code, cni_error_of

from . import interface, protocol
from .keeper import House, Keeper
from .protocol import (
    Acquire,
    Begun,
    Done,
    Failed,
    Found,
    Kept,
    List,
    Listed,
    LookUp,
    Ping,
    Release,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_py.kernel.dhcp_socket import DhcpSocket
    from cni_py.spec.attachment import Attachment

    from .client import Terms
    from .lease import Lease
    from .protocol import Answer, Asked
    from .store import Store

# select(2) does not count the time that the machine sleeps, leases do.
_LONGEST_SLEEP_SECONDS = 60.0
# Leases of an earlier run are confirmed one after another.
_RESUME_EVERY_SECONDS = 0.02
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_READ_BYTES = 1 << 16
_DEAF_SECONDS = 1.0
_FOREIGN = b"HTTP/1.0 400 cni-py's DHCP daemon does not speak Go's net/rpc\r\n\r\n"


@dataclass(eq=False)
class _Caller:
    """A connection, and the keeper whose lease it has asked for and not yet kept."""

    connection: socket.socket
    read: bytearray = field(default_factory=bytearray)
    keeper: Keeper | None = None


class Daemon:
    """`run` is the loop. `prefix` is put before the callers' paths of namespaces."""

    def __init__(
        self, listener: socket.socket, terms: Terms, store: Store, prefix: str = ""
    ) -> None:
        self._listener = listener
        self._terms = terms
        self._store = store
        self._prefix = prefix
        self._selector = selectors.DefaultSelector()
        self._keepers: dict[Attachment, Keeper] = {}
        self._callers: set[_Caller] = set()
        self._stopping = False
        self._deaf_until = math.inf
        self._house = House(
            terms=terms,
            store=store,
            socket_path=os.fsdecode(listener.getsockname()),
            watch=lambda one, keeper: self._register(one, keeper.hear),
            unwatch=self._unregister,
            gone=self._drop,
            log=_log,
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        wakeup = self._listen_to_signals()
        self._listener.settimeout(0.0)
        self._register(self._listener, self._accept)
        self._resume()
        _log("listening", socket=self._house.socket_path, leases=len(self._keepers))
        while not self._stopping:
            for key, _ in self._selector.select(self._sleep()):
                # What an action before this one has closed is not read.
                if key.fd in self._selector.get_map():
                    self._guarded(key.data)
            time = now()
            for keeper in [one for one in self._keepers.values() if one.deadline <= time]:
                self._guarded(keeper.advance)
            if self._deaf_until <= time:
                self._deaf_until = math.inf
                self._register(self._listener, self._accept)
        for keeper in list(self._keepers.values()):
            keeper.refuse("the DHCP daemon is ending")
        for caller in list(self._callers):
            caller.connection.close()
        wakeup.close()
        _log("ending", leases=len(self._keepers))

    def _guarded(self, action: Callable[[], None]) -> None:
        """A defect in one lease must not take the others along."""
        try:
            action()
        except Exception as error:  # noqa: BLE001
            _log("defect", error=f"{type(error).__name__}: {error}")

    def _sleep(self) -> float:
        next_one = min([self._deaf_until, *(one.deadline for one in self._keepers.values())])
        return min(max(0.0, next_one - now()), _LONGEST_SLEEP_SECONDS)

    def _listen_to_signals(self) -> socket.socket:
        reader, writer = socket.socketpair()
        reader.settimeout(0.0)
        writer.settimeout(0.0)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        def stop() -> None:
            reader.recv(64)
            self._stopping = True

        self._register(reader, stop)
        return writer

    def _resume(self) -> None:
        """Take up the leases that an earlier daemon at the same socket has kept."""
        begin_at = now()
        for record in list(self._store.records()):
            if record.socket != self._house.socket_path:
                continue
            keeper = Keeper(self._house, record.attachment, record.place, record.options)
            keeper.resume(record, begin_at)
            self._keepers[record.attachment] = keeper
            begin_at += _RESUME_EVERY_SECONDS

    # Callers.

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            _log("accept failed", error=str(error))
            # Out of descriptors, most likely: the caller stays in the queue until there are some.
            self._unregister(self._listener)
            self._deaf_until = now() + _DEAF_SECONDS
            return
        connection.settimeout(0.0)
        if not may_call(connection):
            _send(connection, Failed(code=4, msg="only root may call the DHCP daemon"))
            connection.close()
            return
        caller = _Caller(connection)
        self._callers.add(caller)
        self._register(connection, lambda: self._read(caller))

    def _read(self, caller: _Caller) -> None:
        try:
            data = caller.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        caller.read += data
        if not data or len(caller.read) > protocol.MAX_LINE_BYTES:
            self._part(caller)
            return
        while caller in self._callers and b"\n" in caller.read:
            line, _, rest = bytes(caller.read).partition(b"\n")
            caller.read = bytearray(rest)
            self._serve(caller, line)

    def _part(self, caller: _Caller) -> None:
        """The caller is gone; a lease that it has not kept is given back."""
        self._callers.discard(caller)
        self._unregister(caller.connection)
        caller.connection.close()
        keeper, caller.keeper = caller.keeper, None
        if keeper is not None and self._keepers.get(keeper.attachment) is keeper:
            keeper.answer = None
            self._drop(keeper)
            keeper.release()

    def _serve(self, caller: _Caller, line: bytes) -> None:
        if line.startswith((b"CONNECT ", b"GET ", b"POST ")):
            with suppress(OSError):
                caller.connection.send(_FOREIGN, socket.MSG_NOSIGNAL)
            self._part(caller)
            return
        try:
            answer = self._answer(caller, protocol.read_asked(line))
        except ValueError as error:
            msg = "the DHCP daemon did not understand the request"
            answer = Failed(code=Code.INTERNAL, msg=msg, details=str(error))
        except Exception as error:  # noqa: BLE001 - the caller is told of defects too
            answer = Failed.of(cni_error_of(error))
        if answer is not None:
            _send(caller.connection, answer)

    def _answer(self, caller: _Caller, asked: Asked) -> Answer | None:
        """Carry out a request; None where there is nothing to say yet."""
        match asked:
            case Acquire():
                self._acquire(caller, asked)
                return None
            case Kept():
                caller.keeper = None
                return None
            case LookUp():
                keeper = self._keepers.get(asked.attachment)
                lease = None if keeper is None else keeper.lease
                return Found(lease=lease, is_over=lease is not None and lease.is_over(now()))
            case Release():
                self._release(asked.attachment)
            case List():
                own = [one for one in self._keepers if one.network == asked.network]
                return Listed(attachments=tuple(sorted(own)))
            case Ping():
                pass
        return Done()

    def _acquire(self, caller: _Caller, asked: Acquire) -> None:
        self._require_free(asked.attachment)
        place = interface.find(self._prefix + asked.netns, asked.attachment.ifname)
        keeper = Keeper(self._house, asked.attachment, place, asked.options)
        keeper.priority = asked.priority
        self._keepers[asked.attachment] = caller.keeper = keeper

        def answer(outcome: Lease | CniError) -> None:
            if isinstance(outcome, CniError):
                caller.keeper = None
                _send(caller.connection, Failed.of(outcome))
            else:
                _send(caller.connection, Found(lease=outcome))

        _send(caller.connection, Begun(seconds=self._terms.resend_timeout))
        keeper.acquire(answer)

    def _require_free(self, attachment: Attachment) -> None:
        """Raise unless there is no lease, or one whose interface is gone."""
        keeper = self._keepers.get(attachment)
        if keeper is None:
            return
        who = f"container {attachment.container_id}"
        if keeper.answer is not None:
            msg = f"an ADD of {attachment.ifname} of {who} is under way"
            raise CniError(Code.TRY_AGAIN_LATER, msg)
        if interface.is_there(keeper.place):
            address = "an address" if keeper.lease is None else keeper.lease.address
            msg = f"{who} has the DHCP lease of {address} for {attachment.ifname}"
            raise CniError(Code.INTERNAL, msg, "DEL comes before the next ADD")
        self._drop(keeper)
        keeper.forget()

    def _release(self, attachment: Attachment) -> None:
        keeper = self._keepers.get(attachment)
        if keeper is None:
            self._store.remove(attachment)
            return
        self._drop(keeper)
        # An ADD that still waits hears of it.
        keeper.refuse("the attachment was deleted during its ADD")
        keeper.release()

    def _drop(self, keeper: Keeper) -> None:
        if self._keepers.get(keeper.attachment) is keeper:
            del self._keepers[keeper.attachment]

    def _register(self, readable: socket.socket | DhcpSocket, action: Callable[[], None]) -> None:
        self._selector.register(readable, selectors.EVENT_READ, action)

    def _unregister(self, readable: socket.socket | DhcpSocket) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(readable)


def _send(connection: socket.socket, answer: Answer) -> None:
    """Answer a caller that may be gone."""
    with suppress(OSError):
        connection.send(protocol.line(answer), socket.MSG_NOSIGNAL)


def _log(event: str, attachment: Attachment | None = None, **fields: Any) -> None:
    """One line of JSON on standard error."""
    told: dict[str, Any] = {"event": event}
    if attachment is not None:
        told |= {
            "network": attachment.network,
            "container": attachment.container_id,
            "ifname": attachment.ifname,
        }
    # Whoever has read the log may be gone.
    with suppress(OSError):
        sys.stderr.write(json.dumps(told | fields, separators=(",", ":")) + "\n")
        sys.stderr.flush()
