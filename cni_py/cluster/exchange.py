"""One request over HTTP to somebody who is not trusted: bounded in time and size, no redirects.

Proxies of the environment are not used, and a connection serves one request.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_PORTS = {"http": 80, "https": 443}


class ExchangeError(Exception):
    """There is no answer, or not all of it; the text is one line. Whether it was heard is open."""


class TooLargeError(ExchangeError):
    """The answer is larger than it may be."""


class UntrustedError(ExchangeError):
    """The other one is not who it has to be: its certificate is not believed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service is. `path` is what all its paths begin with, without a slash at its end."""

    is_tls: bool
    host: str
    port: int
    path: str

    @property
    def is_loopback(self) -> bool:
        """Whether nobody else hears what is said."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered; the names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """For the whole of one request, in seconds; for the answer's body, in bytes."""

    seconds: float
    body: int
    connect: float | None = None
    """Seconds until somebody has to have answered at all, where that is less."""


class Hangup:
    """Lets another thread end an exchange, which then raises ExchangeError."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: list[socket.socket] = []
        self._is_over = False

    def end(self) -> None:
        """End it now, or as soon as it has a connection."""
        with self._lock:
            self._is_over = True
            _shut(self._taken)

    def take(self, one: socket.socket) -> None:
        """The exchange has this connection."""
        with self._lock:
            self._taken.append(one)
            if self._is_over:
                _shut(self._taken)


def parse_place(url: str) -> Place:
    """Where `http://` or `https://` URL is. Raises ValueError with what it must not have."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("it has characters that a URL cannot have")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("it is no http:// or https:// URL of a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("it has a user, a query or a fragment")
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    return Place(parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/"))


def exchange(
    place: Place,
    method: str,
    path: str,
    *,
    limits: Limits,
    headers: Mapping[str, str],
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
    hangup: Hangup | None = None,
) -> Answer:
    """Ask once. Raises ExchangeError where there is no whole answer within the limits."""
    seconds = limits.seconds
    patience = seconds if limits.connect is None else min(limits.connect, seconds)
    connection = (
        HTTPSConnection(place.host, place.port, timeout=patience, context=tls)
        if place.is_tls
        else HTTPConnection(place.host, place.port, timeout=patience)
    )
    late = threading.Event()
    # A socket's own timeout begins anew with each byte that trickles in.
    taken: list[socket.socket] = []
    timer = threading.Timer(seconds, _end, (taken, late))
    timer.daemon = True
    try:
        connection.connect()
        # The connection forgets it when the answer is the last one.
        taken.append(connection.sock)
        if hangup is not None:
            hangup.take(connection.sock)
        if patience < seconds:
            connection.sock.settimeout(seconds)
        timer.start()
        connection.request(method, place.path + path, body, dict(headers))
        with connection.getresponse() as response:
            data = response.read(limits.body + 1)
            is_whole = not response.length
            found = {name.lower(): value for name, value in response.getheaders()}
    except ssl.SSLCertVerificationError as error:
        raise UntrustedError(f"its certificate is not trusted: {error.verify_message}") from error
    except (OSError, HTTPException, ValueError) as error:
        if late.is_set() or isinstance(error, TimeoutError):
            waited = seconds if taken else patience
            raise ExchangeError(f"there is no answer within {waited:g} s") from error
        raise ExchangeError(_words(error)) from error
    finally:
        timer.cancel()
        connection.close()
    if late.is_set():
        raise ExchangeError(f"there is no whole answer within {seconds:g} s")
    if len(data) > limits.body:
        raise TooLargeError(f"the answer is larger than {limits.body} bytes")
    if not is_whole:
        raise ExchangeError("the answer ends before its end")
    return Answer(response.status, found, data)


def _end(taken: list[socket.socket], late: threading.Event) -> None:
    late.set()
    _shut(taken)


def _shut(taken: list[socket.socket]) -> None:
    for one in taken:
        with suppress(OSError):
            # Not that of an SSLSocket, which would have its reader read what is encrypted.
            socket.socket.shutdown(one, socket.SHUT_RDWR)


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", "") or str(error) or type(error).__name__
    return ascii(text)[1:-1][:200]
