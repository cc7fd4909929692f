"""Calling an SDN's controller: conf/openapi/sdn-webhook.yaml, with retries and idempotency keys."""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar
from urllib.parse import quote

import msgspec

from cni_py.spec.config import decode_json
from cni_py.spec.errors import CniError, Code

from .exchange import Answer, ExchangeError, Limits, TooLargeError, UntrustedError, exchange
from .vetting import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .exchange import Place
    from .webhook_access import Access

# Twice what 20000 routes need.
_MOST_BYTES = 4 << 20
# In seconds: a controller that says more is asked again all the same.
_LONGEST = 300.0
_TOO_MANY, _NOT_FOUND, _SERVER = 429, 404, 500

T = TypeVar("T")


class Node(msgspec.Struct, frozen=True):
    """What a node says of itself."""

    addresses: Annotated[tuple[str, ...], msgspec.Meta(max_length=2)]
    subnets: Annotated[tuple[str, ...], msgspec.Meta(max_length=2)]


class Route(msgspec.Struct, frozen=True):
    """Packets to `destination` go to the node at `gateway`."""

    destination: str
    gateway: str


class Blocked(msgspec.Struct, frozen=True):
    """A network that is somebody else's."""

    destination: str
    reason: str = ""


class Routes(msgspec.Struct, frozen=True):
    """A node's routes, and what no node can have."""

    routes: Annotated[tuple[Route, ...], msgspec.Meta(max_length=20000)]
    blocked: Annotated[tuple[Blocked, ...], msgspec.Meta(max_length=1000)] = ()


class Health(msgspec.Struct, frozen=True):
    """How the controller is."""

    status: Literal["ok", "degraded", "down"]
    message: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds: for one answer, for all of one call with its retries, the first pause, and the
    longest one. Pauses are random, up to twice the one before.
    """

    answer: float = 10.0
    call: float = 30.0
    first: float = 0.25
    longest: float = 8.0


class Controller:
    """One cluster at a controller. Methods raise CniError 50, or 11 for what passes."""

    def __init__(self, place: Place, cluster: str, access: Access, patience: Patience) -> None:
        self._place, self._access, self._patience = place, access, patience
        self._nodes = f"/v1/clusters/{quote(cluster, safe='')}/nodes/"
        # Until when the controller does not want to be asked, by the monotonic clock.
        self._not_before = 0.0

    def health(self) -> Health:
        """Asked once, without retries."""
        answer = self._call("GET", "/v1/health", attempts=1)
        return self._decoded(answer, Health)

    def node(self, node: str) -> Node | None:
        """What it said last; None if it is not known."""
        answer = self._call("GET", self._path(node), none=True)
        return None if answer.status == _NOT_FOUND else self._decoded(answer, Node)

    def announce(self, node: str, said: Node) -> None:
        """Say it."""
        self._call("PUT", self._path(node), msgspec.json.encode(said))

    def withdraw(self, node: str) -> None:
        """Have it forgotten."""
        self._call("DELETE", self._path(node), none=True)

    def routes(self, node: str) -> Routes:
        """Its routes; none for one that is not known."""
        return self._decoded(self._call("GET", f"{self._path(node)}/routes"), Routes)

    def replace_routes(self, node: str, routes: Iterable[Route]) -> None:
        """Have exactly these. Raises CniError 50 if the controller has others after that."""
        wanted = sorted(routes, key=lambda one: one.destination)
        body = msgspec.json.encode({"routes": wanted})
        answer = self._call("PUT", f"{self._path(node)}/routes", body)
        if set(self._decoded(answer, Routes).routes) != set(wanted):
            msg = f"the controller at {self._place} has other routes than those that it was told"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg)

    def _path(self, node: str) -> str:
        return self._nodes + quote(node, safe="")

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        none: bool = False,
        attempts: int = 100,
    ) -> Answer:
        """Ask until there is an answer that is not to be tried again. `none`: 404 is one."""
        headers = {"Accept": "application/json, application/problem+json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if method != "GET":
            headers["Idempotency-Key"] = str(uuid.uuid4())
        patience = self._patience
        end, pause = time.monotonic() + patience.call, patience.first
        wait = self._not_before - time.monotonic()
        problem = "it asked to be left alone for now"
        for attempt in range(attempts):
            if wait > 0:
                if time.monotonic() + wait > end:
                    break
                time.sleep(wait)
            answer, problem = self._once(method, path, body, headers)
            if answer is not None and (answer.status < _SERVER and answer.status != _TOO_MANY):
                return self._accepted(answer, none=none)
            asked = 0.0 if answer is None else _retry_after(answer)
            self._not_before = time.monotonic() + asked if asked else 0.0
            # A random part, so that all nodes do not come back at once.
            wait = asked + random.uniform(pause / 2, pause)  # noqa: S311
            pause = min(pause * 2, patience.longest)
            if attempt == attempts - 1 or time.monotonic() + wait > end:
                break
        msg = f"the controller at {self._place} does not answer: {problem}"
        raise CniError(Code.TRY_AGAIN_LATER, msg, "it is tried again")

    def _once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[Answer | None, str]:
        """An answer, or None; and what is wrong if it is to be tried again."""
        try:
            answer = exchange(
                self._place,
                method,
                path,
                limits=Limits(self._patience.answer, _MOST_BYTES),
                headers=headers | self._access.headers(),
                body=body,
                tls=self._access.tls(),
            )
        except TooLargeError as error:
            raise self._unusable(str(error)) from None
        except UntrustedError as error:
            msg = f"the controller at {self._place} is not asked: {error}"
            raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg, "its authority goes to ca.pem") from None
        except ExchangeError as error:
            return None, str(error)
        return answer, f"status {answer.status}{_title(answer)}"

    def _accepted(self, answer: Answer, *, none: bool) -> Answer:
        status = answer.status
        if status in (200, 201, 204) or (none and status == _NOT_FOUND):
            return answer
        if 300 <= status < 400:
            where = quoted(answer.headers.get("location", ""))
            raise self._unusable(f"a redirect to {where}, which is not followed")
        if status in (401, 403):
            msg = f"the controller at {self._place} does not let this node in: status {status}"
            raise CniError(
                Code.PLUGIN_NOT_AVAILABLE, msg + _title(answer), "see its token or certificate"
            )
        msg = f"the controller at {self._place} refuses: status {status}{_title(answer)}"
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg)

    def _decoded(self, answer: Answer, kind: type[T]) -> T:
        media = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise self._unusable(f"its type is {quoted(media)}, not application/json")
        try:
            return msgspec.convert(decode_json(answer.body), kind)
        except (ValueError, RecursionError) as error:
            raise self._unusable(ascii(str(error))[1:-1][:200]) from None

    def _unusable(self, why: str) -> CniError:
        msg = f"an answer of the controller at {self._place} cannot be used: {why}"
        return CniError(Code.PLUGIN_NOT_AVAILABLE, msg)


def _title(answer: Answer) -> str:
    """What a problem is called, where it is said (RFC 9457)."""
    try:
        found = decode_json(answer.body[:65536])
    except ValueError:
        return ""
    title = found.get("title") if isinstance(found, dict) else None
    return f", {quoted(title)}" if isinstance(title, str) else ""


def _retry_after(answer: Answer) -> float:
    """In seconds, 0 if nothing is said; as a number or a date (RFC 9110, section 10.2.3)."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:6]), _LONGEST)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, min((when - datetime.now(UTC)).total_seconds(), _LONGEST))
