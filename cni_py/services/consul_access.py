"""Where a Consul is, as whom it is asked, and asking it: each call in a thread, within its time."""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec

from cni_py.cluster.exchange import (
    ExchangeError,
    Hangup,
    Limits,
    UntrustedError,
    exchange,
    parse_place,
)
from cni_py.cluster.store_errors import Denied, Unavailable

from .striving import Pause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_py.cluster.exchange import Answer, Place

DEFAULT_URL = "http://127.0.0.1:8500"

# Of an answer: that about every check of a large cluster has some megabytes.
_MOST_BYTES = 64 << 20
_CONNECT_SECONDS = 3.0
# Calls at once, beside the watches.
_AT_ONCE = 8
_GONE = 404
# Too many requests; no leader, no server, or a server that ends just now.
_LATER = (429, 500, 502, 503, 504)
_DONE = range(200, 300)
_MOST_REASON = 200


@dataclass(frozen=True, slots=True)
class ConsulAccess:
    """How to reach a Consul agent: the one of this node, where instances are registered.

    Paths are of PEM files, read when it is first asked. Raises ValueError for what is no URL.
    """

    url: str = DEFAULT_URL
    token: str = field(default="", repr=False)
    """An ACL token, which needs `service:write` to register and `service:read`, `node:read`."""
    ca: str = ""
    """Who signed the agent's certificate; `""`: whom the system trusts."""
    certificate: str = ""
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        try:
            parse_place(self.url)
        except ValueError as error:
            raise ValueError(f"{self.url!a}: {error}") from None
        if bool(self.certificate) != bool(self.key):
            raise ValueError("a client's certificate needs its key, and the key its certificate")
        if not (self.token.isascii() and (self.token.isprintable() or not self.token)):
            raise ValueError("the token is not one line of ASCII letters")

    @property
    def place(self) -> Place:
        """Where it is."""
        return parse_place(self.url)

    @property
    def is_readable(self) -> bool:
        """Whether others on the way can read and change what is said."""
        return not self.place.is_tls and not self.place.is_loopback

    def tls(self) -> ssl.SSLContext | None:
        """For https, else None. Raises Denied for files that cannot be used."""
        if not self.place.is_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (OSError, ValueError) as error:
            named = ", ".join(filter(None, (self.ca, self.certificate, self.key)))
            raise Denied(f"{named}: {error.strerror or error}" if isinstance(error, OSError)
                         else f"{named}: {error}") from None  # fmt: skip
        return context


def target(path: str, *words: str, **query: str) -> str:
    """A path and what follows it; `words` and `query` may be any text."""
    whole = "/".join((path, *(quote(one, safe="") for one in words)))
    return f"{whole}?{urlencode(query)}" if query else whole


class ConsulClient:
    """Asks one Consul agent, within one event loop. `close` ends what runs."""

    def __init__(self, access: ConsulAccess) -> None:
        self._access, self._place = access, access.place
        self._tls: ssl.SSLContext | None = None
        self._threads = ThreadPoolExecutor(_AT_ONCE, "cni-py consul")
        self._hangups: set[Hangup] = set()
        self.is_closed = False

    async def ask(self, method: str, target: str, *, body: object = None, seconds: float) -> Answer:
        """Ask until there is an answer: one that is done, or 404.

        Every request can be made twice, so one whose answer is lost is made again. Raises
        Unavailable, Denied.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause = Pause()
        while True:
            left = max(deadline - loop.time(), 0.05)
            try:
                return await self.once(
                    method, target, body=body, seconds=left, threads=self._threads
                )
            except Denied:
                raise
            except Unavailable:
                wait = pause.next()
                if self.is_closed or loop.time() + wait >= deadline:
                    raise
                await asyncio.sleep(wait)

    async def once(
        self,
        method: str,
        target: str,
        *,
        body: object = None,
        seconds: float,
        threads: ThreadPoolExecutor,
    ) -> Answer:
        """Ask once, in a thread of these."""
        if self.is_closed:
            raise Unavailable(f"{self._place}: the registry was closed")
        if self._tls is None:
            self._tls = self._access.tls()
        hangup = Hangup()
        call = partial(
            exchange,
            self._place,
            method,
            target,
            limits=Limits(seconds, _MOST_BYTES, _CONNECT_SECONDS),
            headers=self._headers(),
            body=None if body is None else msgspec.json.encode(body),
            tls=self._tls,
            hangup=hangup,
        )
        self._hangups.add(hangup)
        try:
            answer = await asyncio.get_running_loop().run_in_executor(threads, call)
        except UntrustedError as error:
            raise Denied(f"{self._place}: {error}") from None
        except ExchangeError as error:
            raise Unavailable(f"{self._place}: {error}") from None
        except RuntimeError:
            # `close` came first.
            raise Unavailable(f"{self._place}: the registry was closed") from None
        except asyncio.CancelledError:
            hangup.end()
            raise
        finally:
            self._hangups.discard(hangup)
        return self._judged(answer)

    def _headers(self) -> Mapping[str, str]:
        named = {"X-Consul-Token": self._access.token} if self._access.token else {}
        return {"Content-Type": "application/json", **named}

    def _judged(self, answer: Answer) -> Answer:
        if answer.status in _DONE or answer.status == _GONE:
            return answer
        said = ascii(answer.body[:_MOST_REASON].decode(errors="replace").strip())[1:-1]
        reason = f"{self._place}: {answer.status} {said}".rstrip()
        if answer.status in _LATER:
            raise Unavailable(reason)
        raise Denied(reason)

    def close(self) -> None:
        """End what runs; it raises Unavailable."""
        self.is_closed = True
        for one in list(self._hangups):
            one.end()
        self._threads.shutdown(wait=False, cancel_futures=True)
