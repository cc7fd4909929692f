"""The server's limits and places, and asking a running one for its metrics."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

DEFAULT_SOCKET = Path("/run/cni-py/cni.sock")
DEFAULT_METRICS_SOCKET = Path("/run/cni-py/metrics.sock")

_FETCH_SECONDS = 5.0


class Settings(NamedTuple):
    """Limits of the server."""

    idle_workers: int = 4
    max_workers: int = 32
    calls_per_worker: int = 64
    max_queue: int = 1024
    max_idle_connections: int = 1024
    call_seconds: float = 300.0
    restore_rules: bool = False
    host_root: Path | None = None
    take_over: bool = False


def fetch(path: Path, what: str = "/metrics") -> str:
    """What the server at `path` answers with; `""` if it says no. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_FETCH_SECONDS)
        connection.connect(str(path))
        connection.sendall(f"GET {what} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return body.decode(errors="replace") if head.split()[1:2] == [b"200"] else ""
