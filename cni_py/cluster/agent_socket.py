"""Where the agent answers: a unix socket that root alone can use, and TCP where that is asked for.

HTTP/1.0 with four pages: `/status` (JSON), `/metrics`, `/readyz` (503 until the node is ready) and
`/healthz`; `/status` and `POST /release` over the socket alone.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.kernel.sockets import listen, may_call

from .agent_report import AgentStatus, Counters, metrics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

_SECONDS = 5.0
_MOST_BYTES = 8192
_NOT_HTTP = (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class Answers(NamedTuple):
    """What there is to tell, and what to do when it is asked for."""

    status: Callable[[], AgentStatus]
    counters: Counters
    release: Callable[[], None]


@asynccontextmanager
async def answering(
    path: str, address: tuple[str, int] | None, answers: Answers
) -> AsyncGenerator[None, None]:
    """Answer while the block runs. Raises OSError if that cannot be listened to."""
    own = listen(Path(path), socket.SOCK_STREAM)
    servers = [await asyncio.start_unix_server(_handler(answers, local=True), sock=own)]
    try:
        if address is not None:
            servers.append(await asyncio.start_server(_handler(answers, local=False), *address))
        yield
    finally:
        for one in servers:
            one.close()
        Path(path).unlink(missing_ok=True)


def _handler(
    answers: Answers, *, local: bool
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, *_NOT_HTTP):
            async with asyncio.timeout(_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                if len(request) <= _MOST_BYTES and (not local or _may_ask(writer)):
                    writer.write(_answer(request, answers, local=local))
                    await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    return handle


def _may_ask(writer: asyncio.StreamWriter) -> bool:
    found = writer.get_extra_info("socket")
    with socket.socket(fileno=os.dup(found.fileno())) as copy:
        return may_call(copy)


def _answer(request: bytes, answers: Answers, *, local: bool) -> bytes:
    method, _, rest = request.decode(errors="replace").partition(" ")
    path = rest.partition(" ")[0]
    if method == "POST" and path == "/release" and local:
        answers.release()
        return _page(HTTPStatus.ACCEPTED, b"releasing\n")
    if method != "GET":
        return _page(HTTPStatus.METHOD_NOT_ALLOWED, b"")
    if path == "/healthz":
        return _page(HTTPStatus.OK, b"ok\n")
    status = answers.status()
    if path == "/status" and local:
        body = msgspec.json.encode(status)
        return _page(HTTPStatus.OK, body, "application/json")
    if path == "/metrics":
        text = metrics(status, answers.counters).encode()
        return _page(HTTPStatus.OK, text, "text/plain; version=0.0.4")
    if path == "/readyz":
        found = HTTPStatus.OK if status.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _page(found, f"{status.problem or 'ready'}\n".encode())
    return _page(HTTPStatus.NOT_FOUND, b"")


def _page(status: HTTPStatus, body: bytes, kind: str = "text/plain") -> bytes:
    head = f"HTTP/1.0 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def ask(path: str, page: str, method: str = "GET") -> bytes:
    """What the agent that listens at `path` answers. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SECONDS)
        connection.connect(path)
        connection.sendall(f"{method} {page} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return answer.partition(b"\r\n\r\n")[2]
