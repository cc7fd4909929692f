"""One health check, and what may be at the other end."""

from __future__ import annotations

import asyncio

import pytest

from cni_py.services.declaration import Check
from cni_py.services.probe import probe

from .servers import HOST, closing, dripping, endless, saying, serving, silent

TCP = Check(timeout_seconds=5)
HTTP = Check(type="http", path="/ping?x=1", timeout_seconds=5)
QUICK = Check(type="http", timeout_seconds=0.3)


def asked(talk, check, host=HOST):
    """What a check says of a server."""

    async def story():
        async with serving(talk, host) as port:
            return await probe(check, host, port)

    return asyncio.run(story())


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 204 No Content\r\n\r\n", b"HTTP/1.1 302 Found\r\n",
        b"HTTP/1.1 399\r\n", b"HTTP/1.1 200 \r\n", b"HTTP/1.1 200 OK\n",
    ],
)  # fmt: skip
def test_answers(line) -> None:
    assert asked(saying(line), HTTP) == ""


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 500\r\n\r\n", "status 500"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "status 100"),
        (b"HTTP/2 200\r\n", "it does not answer in HTTP/1"),
        (b"SSH-2.0-x\r\n", "it does not answer in HTTP/1"),
        (b"\xff\0\x1b[2J\n", "it does not answer in HTTP/1"),
        (b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK\n", "it does not answer in HTTP/1"),
        (b"HTTP/1.1 200 OK", "it has closed the connection before the end of a line"),
        (b"HTTP/1.1 200 " + b"x" * 4096 + b"\r\n", "its first line has more than 1024 bytes"),
    ],
)
def test_other_answers(said, problem) -> None:
    assert asked(saying(said), HTTP) == problem


@pytest.mark.parametrize(
    ("talk", "problem"),
    [
        (silent, "no answer within 0.3 s"),
        (dripping, "no answer within 0.3 s"),
        (endless, "its first line has more than 1024 bytes"),
        (closing, "it has closed the connection before the end of a line"),
    ],
)
def test_other_servers(talk, problem) -> None:
    assert asked(talk, QUICK) == problem


def test_connection_alone() -> None:
    """tcp: what the server says afterwards, if anything, does not matter."""
    for talk in (silent, endless, saying(b"HTTP/1.1 500\r\n")):
        assert asked(talk, TCP) == ""


def test_nobody_there() -> None:
    async def story():
        async with serving(silent) as port:
            pass
        return await probe(TCP, HOST, port), await probe(HTTP, HOST, port)

    assert asyncio.run(story()) == ("Connection refused", "Connection refused")


def test_request() -> None:
    """What is sent: the path, and a header Host that fits; another port where the check has one."""
    heard = []

    async def talk(reader, writer) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\n")
        await writer.drain()

    async def story():
        async with serving(talk, "::1") as port:
            assert await probe(HTTP, "::1", port) == ""
            named = Check(type="http", host="web.example", port=port, timeout_seconds=5)
            assert await probe(named, "::1", 1) == ""
            return port

    port = asyncio.run(story())
    first, second = heard
    assert first.splitlines()[:2] == ["GET /ping?x=1 HTTP/1.1", f"Host: [::1]:{port}"]
    assert second.splitlines()[:2] == ["GET / HTTP/1.1", "Host: web.example"]


def test_no_redirect_is_followed() -> None:
    asked_for = []

    async def talk(reader, writer) -> None:
        asked_for.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /other\r\n\r\n")
        await writer.drain()

    assert asked(talk, HTTP) == ""
    assert asked_for == [b"/ping?x=1"]
