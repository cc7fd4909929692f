"""The server's parent process: it takes connections and hands each to a worker forked ahead.

It runs no plugin itself. A connection counts only once its message is there, so an idle one costs
nothing; calls that find no worker wait in a queue. A worker serves one call at a time, and no other
after one that did not end well.
"""

from __future__ import annotations

import array
import fcntl
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from cni_py.kernel import roots
from cni_py.kernel.nftables import forget_contexts
from cni_py.kernel.sockets import Place, may_call
from cni_py.names import dnsmasq
from cni_py.spec.errors import CniError, Code

from . import preload, sockets, worker
from .backlog import Backlog
from .metrics import Metrics
from .name_servers import NameServers
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .settings import Settings
    from .watch import Source

_IDLE_CONNECTION_SECONDS = 10.0
# An undoing may wait 30 s for a lock.
_KILL_AFTER_SECONDS = 60.0
_CHANNEL_FD = 3
_HOST_ROOT_FD = 4
_METRICS_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
_FORK_EVERY_SECONDS = 0.01
_FORK_AGAIN_SECONDS = 1.0
_SURPLUS_SECONDS = 1.0
_REAP_SECONDS = 1.0
# Calls wait at first for what was deferred, whose ports and addresses they may need.
_DEFERRED_FIRST_SECONDS = 10.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class _Worker:
    """A child process, and the channel to it. `since` is when its call began."""

    pid: int
    channel: socket.socket
    since: float = 0.0
    idle_since: float = field(default_factory=time.monotonic)
    reported: bool = False
    told_to_end: bool = False
    deferred: str = ""


@dataclass
class Server:
    """The parent's state; `run` is its loop."""

    calls: socket.socket
    metrics_socket: socket.socket | None
    settings: Settings
    own_places: tuple[Place, ...] = ()
    host_root: roots.Root | None = None
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}
        self._waiting: dict[socket.socket, float] = {}
        self._queue: deque[socket.socket] = deque()
        self._readers: dict[socket.socket, float] = {}
        self._paused: dict[socket.socket, tuple[float, Callable[[], None]]] = {}
        # The workers that the program had before it executed itself anew, and who restores rules.
        self._unwatched = sockets.children()
        self._watch: Watch | None = None
        self._name_servers = NameServers(self._register, self._selector.unregister)
        self._last_fork = self._no_fork_before = 0.0
        self._backlog = Backlog(_log)
        self._first_deferred = False
        self._stopping = False
        self._reloading = False

    def run(self) -> bool:
        """Serve until SIGTERM (False) or SIGHUP (True: execute the program anew)."""
        preload.load()
        gc.collect()
        gc.freeze()
        wakeup = self._listen_to_signals()
        if self.metrics_socket is not None:
            self._register(self.metrics_socket, self._accept_reader)
        self._fork_idle()
        self._begin_with_deferred()
        if self.settings.restore_rules:
            self._watch_rules()
        _log({"event": "listening", "socket": str(self.calls.getsockname())})
        while not self._is_done():
            for key, _ in self._selector.select(self._timeout()):
                action: Callable[[], None] = key.data
                action()
            self._dispatch()
            self._expire()
        wakeup.close()
        self._name_servers.close()
        for one in self._idle:
            one.channel.close()
        return self._reloading

    def _is_done(self) -> bool:
        """Whether to end; a new program leaves the calls that have begun to their workers."""
        return self._stopping and not self._queue and (self._reloading or not self._busy)

    # Signals.

    def _listen_to_signals(self) -> socket.socket:
        reader, writer = socket.socketpair()
        reader.settimeout(0.0)
        writer.settimeout(0.0)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        def news() -> None:
            for number in reader.recv(64):
                self._stop(reloading=number == signal.SIGHUP)

        self._register(reader, news)
        return writer

    def _stop(self, *, reloading: bool) -> None:
        """Take no more connections; what has been taken is served."""
        if self._stopping:
            return
        if not reloading and self.own_places:
            for place in self.own_places:
                place.remove()
            # Nobody finds the way to these any more, and some may be at the door.
            self._accept()
        self._stopping, self._reloading = True, reloading
        if self._paused.pop(self.calls, None) is None:
            self._selector.unregister(self.calls)
        if not reloading:
            self.calls.close()
        _log({"event": "reloading" if reloading else "stopping", "busy": len(self._busy)})

    # Connections.

    def _accept(self) -> None:
        # A signal that came together with a connection has closed the socket.
        while not self._stopping:
            try:
                connection, _ = self.calls.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # Out of descriptors, say: what waits needs one that is idle here.
                if self._waiting:
                    self._drop(next(iter(self._waiting)))
                self._pause(self.calls, self._accept, error)
                return
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        if not may_call(connection):
            self._refuse(connection, Code.INVALID_ENVIRONMENT, "only root may call the server")
            return
        if self._take(connection):
            return
        if len(self._waiting) >= self.settings.max_idle_connections:
            self._drop(next(iter(self._waiting)))
        self._waiting[connection] = time.monotonic()
        self._register(connection, lambda: self._ready(connection))

    def _ready(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._waiting[connection]
        self._take(connection)

    def _take(self, connection: socket.socket) -> bool:
        """Queue a call whose message has come, forget a caller that has gone; False for neither."""
        try:
            gone = not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            gone = True
        if gone:
            connection.close()
        elif len(self._queue) >= self.settings.max_queue:
            details = f"{len(self._queue)} calls are waiting"
            self._refuse(connection, Code.TRY_AGAIN_LATER, "too many calls at once", details)
        else:
            self._queue.append(connection)
        return True

    def _refuse(self, connection: socket.socket, code: Code, msg: str, details: str = "") -> None:
        """Answer with an error, and close; what lies unread then would make the kernel drop it."""
        worker.refuse(connection, code, msg, details)
        try:
            connection.shutdown(socket.SHUT_RD)
            connection.recv(1, socket.MSG_DONTWAIT)
        except OSError:
            # Nothing has come, or the caller has gone.
            pass
        connection.close()

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._waiting[connection]
        connection.close()

    # Workers.

    def _dispatch(self) -> None:
        """Give waiting calls to idle workers, and fork new ones for those to come."""
        while self._queue:
            if not self._idle and not (self._may_fork_for_queue() and self._fork(rehearse=False)):
                return
            one = self._idle.pop()
            connection = self._queue.popleft()
            fds = array.array("i", [connection.fileno()])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
            if not self._tell(one, worker.SERVE, rights):
                self._queue.appendleft(connection)
                continue
            connection.close()
        if not self._stopping:
            self._dispatch_deferred()
            self._fork_idle()

    def _tell(self, one: _Worker, message: bytes, rights: list[Any]) -> bool:
        """Give a waiting worker something to do; False where it has died."""
        try:
            one.channel.sendmsg([message], rights, socket.MSG_NOSIGNAL)
        except OSError:
            # It has died while it waited: its end of the channel tells.
            self._lose(one)
            return False
        one.since = time.monotonic()
        self._busy[one.pid] = one
        return True

    def _may_fork_for_queue(self) -> bool:
        """Whether a call that waits gets a new worker, or one of those that are busy.

        A fork takes as much of a processor as a call: in a burst the workers that are there serve
        most of it. Calls that wait for the kernel get more workers, one after another.
        """
        now = time.monotonic()
        if len(self._busy) >= self.settings.max_workers or now < self._no_fork_before:
            return False
        return not self._busy or now - self._last_fork >= _FORK_EVERY_SECONDS

    def _fork_idle(self) -> None:
        """Keep workers ready; while calls run one is enough, for a fork takes their processor."""
        wanted = 1 if self._busy else self.settings.idle_workers
        room = self.settings.max_workers - len(self._busy)
        if time.monotonic() < self._no_fork_before:
            return
        while len(self._idle) < min(wanted, room):
            if not self._fork(rehearse=True):
                return

    def _fork(self, *, rehearse: bool) -> bool:
        """Add an idle worker; False where the machine has no room for one: it is tried later."""
        self._last_fork = time.monotonic()
        own = childs = None
        try:
            own, childs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            pid = os.fork()
        except OSError as error:
            self._no_fork_before = self._last_fork + _FORK_AGAIN_SECONDS
            for end in filter(None, (own, childs)):
                end.close()
            _log({"event": "fork failed", "error": str(error)})
            return False
        if pid == 0:
            _become_worker(
                childs, self.settings.calls_per_worker, self.host_root, rehearse=rehearse
            )
        childs.close()
        one = _Worker(pid, own)
        self._idle.append(one)
        self._register(own, lambda: self._hear(one))
        return True

    def _hear(self, one: _Worker) -> None:
        """A worker's report, or its end."""
        try:
            data = one.channel.recv(worker.MAX_REPORT_BYTES)
        except OSError:
            data = b""
        if not data:
            self._lose(one)
            return
        try:
            told = msgspec.json.decode(data, type=worker.Report)
        except msgspec.MsgspecError as error:
            # One worker's report must not end the server; its end of the channel follows.
            _log({"event": "report not understood", "error": str(error)})
            return
        one.reported = True
        if told.deferred:
            self._end_deferred(one, told.error)
        if told.again:
            del self._busy[one.pid]
            one.reported, one.told_to_end, one.idle_since = False, False, time.monotonic()
            # The one that has just served has everything at hand: it is the next.
            self._idle.append(one)
        self.metrics.count(told.plugin, told.verb, told.code, told.milliseconds)
        line = msgspec.to_builtins(told)
        for key in ("again", "error"):
            line.pop(key, None)
        _log({"event": "call", **line})

    def _lose(self, one: _Worker) -> None:
        """A worker has ended: take it off the lists, and reap it."""
        self._selector.unregister(one.channel)
        one.channel.close()
        if self._busy.pop(one.pid, None) is not None and not one.reported:
            self.metrics.lost += 1
            _log({"event": "worker died", "pid": one.pid})
            self._end_deferred(one, "its worker died")
        elif one in self._idle:
            self._idle.remove(one)
        os.waitpid(one.pid, 0)

    # DELs that launchers have written down.

    def _begin_with_deferred(self) -> None:
        """Calls are taken once each of those has been tried, or after a while."""
        self._backlog.look(time.monotonic())
        if self._backlog.is_tried:
            self._register(self.calls, self._accept)
            return
        _log({"event": "carrying out deferred DELs", "number": self._backlog.number})
        self._paused[self.calls] = (time.monotonic() + _DEFERRED_FIRST_SECONDS, self._accept)
        self._first_deferred = True
        self._dispatch()

    def _dispatch_deferred(self) -> None:
        """One at a time beside calls, and as many as there are workers before the first call."""
        most = max(1, self.settings.idle_workers) if self._first_deferred else 1
        while self._idle or not self._busy:
            name = self._backlog.take(most)
            if name is None:
                break
            if not self._idle and not self._fork(rehearse=False):
                self._backlog.ended(name, time.monotonic(), "no worker can be forked")
                break
            one = self._idle.pop()
            if self._tell(one, worker.CARRY_OUT + name.encode(), []):
                one.deferred = name
            else:
                self._backlog.ended(name, time.monotonic(), "its worker died")
        if self._first_deferred and self._backlog.is_tried:
            self._first_deferred = False
            if self.calls in self._paused:
                self._paused[self.calls] = (0.0, self._accept)

    def _end_deferred(self, one: _Worker, error: str) -> None:
        if one.deferred:
            self._backlog.ended(one.deferred, time.monotonic(), error)
            one.deferred = ""

    def _expire(self) -> None:
        """End calls that take too long, and connections that never become calls."""
        now = time.monotonic()
        self._unwatched -= {pid for pid in self._unwatched if os.waitpid(pid, os.WNOHANG)[0]}
        if self._watch is not None and self._watch.take():
            self._restore_rules()
        for one in list(self._busy.values()):
            over = now - one.since - self.settings.call_seconds
            if over > 0 and not one.told_to_end:
                # It undoes what it has done, and answers with code 11.
                one.told_to_end = True
                os.kill(one.pid, signal.SIGTERM)
            elif over > _KILL_AFTER_SECONDS:
                os.kill(one.pid, signal.SIGKILL)
        for one in self._surplus():
            if now - one.idle_since > _SURPLUS_SECONDS:
                self._retire(one)
        if now >= self._backlog.next_look:
            self._backlog.look(now)
            self._dispatch()
        if now >= self._name_servers.next_look and not self._stopping:
            self._look_at_name_servers()
        self._expire_sockets(now)

    def _expire_sockets(self, now: float) -> None:
        for connection, since in list(self._waiting.items()):
            if now - since > _IDLE_CONNECTION_SECONDS:
                self._drop(connection)
        for listener, (until, action) in list(self._paused.items()):
            if now > until:
                del self._paused[listener]
                self._register(listener, action)
        for reader, since in list(self._readers.items()):
            if now - since > _METRICS_SECONDS:
                self._close_reader(reader)

    def _surplus(self) -> list[_Worker]:
        """The workers that a burst has left behind, longest idle first."""
        extra = len(self._idle) - self.settings.idle_workers
        return self._idle[:extra] if extra > 0 else []

    def _retire(self, one: _Worker) -> None:
        """Tell a waiting worker to end; its end of the channel tells when it has."""
        self._idle.remove(one)
        one.channel.shutdown(socket.SHUT_WR)

    def _timeout(self) -> float:
        """Until the next thing that expires."""
        now = time.monotonic()
        deadlines = [self._backlog.next_look]
        deadlines += [since + _IDLE_CONNECTION_SECONDS for since in self._waiting.values()]
        deadlines += [since + _METRICS_SECONDS for since in self._readers.values()]
        for one in self._busy.values():
            grace = _KILL_AFTER_SECONDS if one.told_to_end else 0.0
            deadlines.append(one.since + self.settings.call_seconds + grace)
        deadlines += [until for until, _ in self._paused.values()]
        deadlines.append(self._name_servers.next_look)
        if self._watch is not None and self._watch.due:
            deadlines.append(self._watch.due)
        if self._unwatched:
            deadlines.append(now + _REAP_SECONDS)
        deadlines += [one.idle_since + _SURPLUS_SECONDS for one in self._surplus()]
        if self._queue and len(self._busy) < self.settings.max_workers:
            deadlines.append(max(self._last_fork + _FORK_EVERY_SECONDS, self._no_fork_before))
        elif self._no_fork_before > now:
            deadlines.append(self._no_fork_before)
        return max(0.001, min(deadlines) - now)

    # Rules.

    def _watch_rules(self) -> None:
        """Begin by restoring: they may have been flushed while nobody watched."""
        with roots.inside(self.host_root):
            self._watch = watch = Watch()
        watch.note()
        for source in watch.sources:
            self._register(source.file, partial(self._hear_of_rules, source))

    def _hear_of_rules(self, source: Source) -> None:
        try:
            asks = source.asks()
        except OSError as error:
            # The bus has ended.
            _log({"event": "no more events of rules", "error": str(error)})
            self._selector.unregister(source.file)
            return
        if asks and self._watch is not None:
            self._watch.note()

    def _restore_rules(self) -> None:
        from cni_py.plugins.restoring import restore

        self._have_restored("rules restored", lambda: msgspec.to_builtins(restore()))

    def _look_at_name_servers(self) -> None:
        try:
            with roots.inside(self.host_root):
                dead = self._name_servers.look()
        except (CniError, OSError) as error:
            _log({"event": "name servers not looked at", "error": str(error)})
            self._name_servers.next_look = time.monotonic() + _REAP_SECONDS
            return
        if dead:
            event = "name servers started again"
            self._have_restored(event, lambda: {"networks": dnsmasq.revive()})

    def _have_restored(self, event: str, restore: Callable[[], dict[str, object]]) -> None:
        """Have a child put something right, and tell what."""
        try:
            pid = os.fork()
        except OSError as error:
            _log({"event": "fork failed", "error": str(error)})
            return
        if pid == 0:
            _become_restorer(self.host_root, event, restore)
        self._unwatched.add(pid)

    # Metrics.

    def _accept_reader(self) -> None:
        if self.metrics_socket is None:
            return
        try:
            reader, _ = self.metrics_socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if self._readers:
                self._close_reader(next(iter(self._readers)))
            self._pause(self.metrics_socket, self._accept_reader, error)
            return
        reader.settimeout(0.0)
        self._readers[reader] = time.monotonic()
        self._register(reader, lambda: self._answer_reader(reader))

    def _answer_reader(self, reader: socket.socket) -> None:
        gauges = {
            "workers_idle": ("Workers that wait for a call.", len(self._idle)),
            "workers_busy": ("Workers that serve a call.", len(self._busy)),
            "queue": ("Calls that wait for a worker.", len(self._queue)),
            "connections_idle": ("Connections without a call yet.", len(self._waiting)),
            "deferred_dels": ("DELs that wait to be carried out.", self._backlog.number),
            "deferred_dels_failing": ("Those of them that have failed.", self._backlog.failing),
        }
        try:
            asked = reader.recv(4096).split()[1:2]
            status, text = self._answer(asked[0] if asked else b"/metrics", gauges)
            body = text.encode()
            head = (
                f"HTTP/1.0 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            )
            reader.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        except OSError as error:
            _log({"event": "metrics not sent", "error": str(error)})
        self._close_reader(reader)

    def _answer(self, asked: bytes, gauges: Mapping[str, tuple[str, int]]) -> tuple[str, str]:
        """Whether this process answers at all, whether it takes calls, or the metrics."""
        if asked == b"/healthz":
            return "200 OK", "healthy\n"
        if asked != b"/readyz":
            return "200 OK", self.metrics.text(gauges)
        if self._stopping:
            return "503 Service Unavailable", "stopping\n"
        if self._first_deferred:
            return "503 Service Unavailable", "carrying out deferred DELs\n"
        return "200 OK", "ready\n"

    def _close_reader(self, reader: socket.socket) -> None:
        self._selector.unregister(reader)
        del self._readers[reader]
        reader.close()

    def _pause(self, listener: socket.socket, action: Callable[[], None], error: OSError) -> None:
        """Leave a listening socket alone for a moment: it stays readable for nothing."""
        _log({"event": "accept failed", "error": str(error)})
        self._selector.unregister(listener)
        self._paused[listener] = (time.monotonic() + _PAUSE_SECONDS, action)

    def _register(self, file: socket.socket | int, action: Callable[[], None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, action)


def _become_worker(
    channel: socket.socket, calls: int, host_root: roots.Root | None, *, rehearse: bool
) -> NoReturn:
    """In the child: nothing of the server's stays but the channel, and the host's root."""
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        forget_contexts()
        given = channel.fileno()
        if host_root is not None:
            # Out of the way of the channel's place, which it may have.
            given = fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, _HOST_ROOT_FD + 1)
            os.dup2(host_root.fd, _HOST_ROOT_FD, inheritable=False)
            host_root = host_root._replace(fd=_HOST_ROOT_FD)
        os.dup2(given, _CHANNEL_FD, inheritable=False)
        kept = _CHANNEL_FD if host_root is None else _HOST_ROOT_FD
        os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
        own = socket.socket(fileno=_CHANNEL_FD)
        worker.serve_calls(own, calls, host_root, rehearse=rehearse)
    finally:
        os._exit(1)


def _become_restorer(
    host_root: roots.Root | None, event: str, restore: Callable[[], dict[str, object]]
) -> NoReturn:
    """In the child: put something right, and tell."""
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        forget_contexts()
        with roots.inside(host_root):
            try:
                told = restore()
            except (CniError, OSError) as error:
                told = {"error": str(error)}
            _log({"event": event, **told})
    finally:
        os._exit(0)


def _log(line: dict[str, object]) -> None:
    """One structured line on stderr; journald takes it from there."""
    try:
        sys.stderr.write(json.dumps(line, separators=(",", ":")) + "\n")
        sys.stderr.flush()
    except OSError:
        return
