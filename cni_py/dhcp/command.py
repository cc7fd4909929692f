"""`dhcp daemon`: the reference daemon's command line."""

from __future__ import annotations

import argparse
import errno
import os
import re
import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cni_py.kernel import state_files
from cni_py.kernel.own_folders import limit_umask
from cni_py.kernel.sockets import listen, passed_sockets

from .client import Terms
from .daemon import Daemon
from .protocol import DEFAULT_SOCKET
from .store import FOLDER, Store

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


class Settings(NamedTuple):
    """What the command line says; times are in seconds."""

    pidfile: str = ""
    hostprefix: str = ""
    socketpath: str = DEFAULT_SOCKET
    terms: Terms = Terms()


class DaemonError(Exception):
    """The daemon cannot start; its text says why."""


def seconds(text: str) -> float:
    """A duration as Go writes it: `1m2s`, `500ms`. Raises ValueError."""
    found = list(_PART.finditer(text))
    if not text or "".join(one[0] for one in found) != text:
        raise ValueError(f"invalid duration {text!r}: for example 10s, 1m2s, 500ms")
    return sum(float(one[1]) * _UNITS[one[2]] for one in found)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run the daemon with `arguments`, those after the word `daemon`, and end the process."""
    try:
        run(_parse(arguments))
    except DaemonError as error:
        sys.stderr.write(f"dhcp daemon: {error}\n")
        sys.exit(1)
    sys.exit(0)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises DaemonError."""
    if settings.pidfile and not os.path.isabs(settings.pidfile):
        msg = f'Error writing pidfile "{settings.pidfile}": path not absolute'
        raise DaemonError(msg)
    limit_umask()
    # A lease that is asked for takes two descriptors.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    path = settings.hostprefix + settings.socketpath
    listener, is_own = _listener(path)
    own = [Path(path)] if is_own else []
    try:
        if settings.pidfile:
            _write(settings.pidfile, str(os.getpid()))
            own.append(Path(settings.pidfile))
        store = Store(settings.hostprefix + FOLDER)
        store.prepare()
        Daemon(listener, settings.terms, store, settings.hostprefix).run()
    except OSError as error:
        msg = f"{error.filename or path}: {error.strerror}"
        raise DaemonError(msg) from error
    except state_files.DamagedError as error:
        msg = f'Error writing pidfile "{settings.pidfile}": {error}'
        raise DaemonError(msg) from error
    finally:
        listener.close()
        for one in own:
            with suppress(OSError):
                one.unlink(missing_ok=True)


def _write(path: str, text: str) -> None:
    """Write a file that anyone may read, and nothing that a link leads to.

    Raises DamagedError, OSError.
    """
    with os.fdopen(state_files.opened(path, os.O_WRONLY | os.O_CREAT), "w") as file:
        file.truncate()
        file.write(text)
        os.fchmod(file.fileno(), 0o644)


def _listener(path: str) -> tuple[socket.socket, bool]:
    """The socket that systemd passes, or one at `path`; whether it is our own."""
    try:
        passed = passed_sockets()
    except (OSError, ValueError) as error:
        msg = f"Error getting listener: LISTEN_FDS: {error}"
        raise DaemonError(msg) from error
    if len(passed) > 1:
        raise DaemonError(f"Too many ({len(passed)}) FDs passed through socket activation")
    if passed:
        return passed[0], False
    try:
        return listen(Path(path), socket.SOCK_STREAM), True
    except OSError as error:
        reason = error.strerror or os.strerror(errno.EIO)
        msg = f"Error getting listener: {path}: {reason}"
        raise DaemonError(msg) from error


def _parse(arguments: Sequence[str]) -> Settings:
    """Read the flags, each with one or two dashes, `-x value` or `-x=value`."""
    parser = argparse.ArgumentParser(prog="dhcp daemon", allow_abbrev=False, add_help=False)
    terms = Terms()

    def flag(name: str, **options: object) -> None:
        parser.add_argument(f"-{name}", f"--{name}", dest=name, **options)  # type: ignore[arg-type]

    parser.add_argument("-h", "-help", "--help", action="help", help="show this and end")
    flag("pidfile", default="", help="where to write the process id: an absolute path")
    flag("hostprefix", default="", help="put before the paths of the socket and of namespaces")
    flag("socketpath", default=DEFAULT_SOCKET, help="where to listen (%(default)s)")
    flag(
        "broadcast",
        nargs="?",
        const=True,
        default=False,
        type=_boolean,
        help="ask the servers to answer by broadcast",
    )
    flag("timeout", type=_duration, default=terms.timeout, help="for one request (10s)")
    flag("resendmax", type=_duration, default=terms.resend_max, help="longest pause (1m2s)")
    flag("resendtimeout", type=_duration, default=terms.resend_timeout, help="for an ADD (3m28s)")
    read = parser.parse_args(arguments)
    terms = Terms(read.timeout, read.resendmax, read.resendtimeout, read.broadcast)
    return Settings(read.pidfile, read.hostprefix, read.socketpath or DEFAULT_SOCKET, terms)


def _duration(text: str) -> float:
    try:
        found = seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if found <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not more than 0")
    return found


def _boolean(text: str) -> bool:
    """A boolean as Go reads it."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise argparse.ArgumentTypeError(f"invalid boolean {text!r}")
