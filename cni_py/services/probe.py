"""One health check: a connection is accepted, or a GET is answered with a status of 200 to 399.

Whoever is asked may be slow, silent, or talk without an end: a check takes its time and no more,
and reads one line of bounded length. No redirect is followed: what it leads to is somebody else.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .declaration import Check

# RFC 9112, section 4: the reason may be left out, and is not looked at.
_STATUS = re.compile(rb"HTTP/1\.[01] (?P<code>[0-9]{3})(?: .*)?")
_ANSWERED = range(200, 400)
_MOST_LINE_BYTES = 1024
# Closed at once, without a connection that waits for its end: there are many of them.
_RESET = struct.pack("ii", 1, 0)


async def probe(check: Check, address: str, port: int) -> str:
    """Ask once; `""` if it answers, else why it counts as not answering. Raises nothing.

    It takes at most `check.timeout_seconds`.
    """
    port = check.port or port
    try:
        async with asyncio.timeout(check.timeout_seconds):
            return await _asked(check, address, port)
    except TimeoutError:
        return f"no answer within {check.timeout_seconds:g} s"
    except OSError as error:
        # asyncio has words of its own for what connect(2) says.
        return os.strerror(error.errno) if error.errno else str(error)


async def _asked(check: Check, address: str, port: int) -> str:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        await loop.sock_connect(one, (address, port))
        if check.type == "tcp":
            return ""
        await loop.sock_sendall(one, _request(check, address, port))
        line = b""
        while b"\n" not in line:
            if len(line) >= _MOST_LINE_BYTES:
                return f"its first line has more than {_MOST_LINE_BYTES} bytes"
            more = await loop.sock_recv(one, _MOST_LINE_BYTES)
            if not more:
                return "it has closed the connection before the end of a line"
            line += more
        return _problem(line.partition(b"\n")[0])


def _request(check: Check, address: str, port: int) -> bytes:
    host = check.host or (f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
    lines = (
        f"GET {check.path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: cni-py",
        "Accept: */*",
        "Connection: close",
    )
    return "".join(f"{one}\r\n" for one in (*lines, "")).encode()


def _problem(line: bytes) -> str:
    found = _STATUS.fullmatch(line.rstrip(b"\r"))
    if found is None:
        return "it does not answer in HTTP/1"
    return "" if int(found["code"]) in _ANSWERED else f"status {found['code'].decode()}"
