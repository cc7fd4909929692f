"""Servers in the test's own event loop, of every kind that a health check may meet."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HOST = "127.0.0.1"


@asynccontextmanager
async def serving(talk: Talk, host: str = HOST) -> AsyncGenerator[int, None]:
    """A server that talks so with each client; its port. It ends with the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.transport.abort()
        tasks.discard(task)

    server = await asyncio.start_server(served, host, 0, backlog=4096)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for one in list(tasks):
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def saying(data: bytes) -> Talk:
    """One that reads a request and says this."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return talk


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing, and stays."""
    del reader, writer
    await asyncio.Event().wait()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Talks without an end and without a line's end."""
    del reader
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says a right answer, a byte now and then."""
    del reader
    while True:
        writer.write(b"H")
        await writer.drain()
        await asyncio.sleep(0.05)


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hangs up."""
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
