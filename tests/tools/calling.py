"""What a container calls a service with: `python -m tools.calling URL`, a line of JSON a call.

The name is resolved for each call, by the container's resolv.conf, and one of the addresses is
called, once: a program that knows nothing of instances. It ends when its standard input does.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

_PAUSE_SECONDS = 0.02
_TIMEOUT_SECONDS = 0.5


def main() -> None:
    parts = urlsplit(sys.argv[1])
    assert parts.hostname is not None
    while not select.select([sys.stdin], [], [], _PAUSE_SECONDS)[0]:
        began = time.monotonic()
        address, why = called(parts.hostname, parts.port or 80, parts.path)
        line = {"at": began, "address": address, "why": why}
        print(json.dumps(line), flush=True)


def called(name: str, port: int, path: str) -> tuple[str, str]:
    """The address that was called, and `""` or why that failed."""
    address = ""
    try:
        found = socket.getaddrinfo(name, port, socket.AF_INET, socket.SOCK_STREAM)
        # The library has sorted them, by nearness and not by chance (RFC 6724).
        address = random.choice(found)[4][0]
        connection = HTTPConnection(str(address), port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, HTTPException) as error:
        return str(address), str(error) or type(error).__name__
    return str(address), "" if status == 200 else f"status {status}"


if __name__ == "__main__":
    main()
