"""Which sockets of the namespace that the thread is in wait for packets (proc(5), net/tcp)."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import IP

_FOLDER = "/proc/thread-self/net/"
# net/tcp_states.h: TCP_LISTEN, and what an unconnected UDP socket has (TCP_CLOSE).
_WAITING = {"tcp": "0A", "udp": "07"}


class Listener(NamedTuple):
    """One socket; an unspecified address stands for all, of :: also those of IPv4."""

    protocol: str
    address: IP
    port: int

    def takes(self, protocol: str, address: IP, port: int) -> bool:
        """Whether a packet to there is its."""
        if (protocol, port) != (self.protocol, self.port):
            return False
        if self.address.version == address.version:
            return self.address.is_unspecified or self.address == address
        # One of IPv6 alone cannot be told from one of both here.
        return self.address.version == 6 and self.address.is_unspecified


def listeners() -> list[Listener]:
    """All sockets of TCP and UDP that wait. Raises OSError."""
    return list(_listeners())


def _listeners() -> Iterator[Listener]:
    for protocol, waiting in _WAITING.items():
        for name in (protocol, f"{protocol}6"):
            try:
                with open(_FOLDER + name) as file:
                    lines = file.readlines()[1:]
            except FileNotFoundError:
                continue
            for fields in map(str.split, lines):
                if fields[3] == waiting:
                    address, _, port = fields[1].partition(":")
                    yield Listener(protocol, _address(address), int(port, 16))


def _address(text: str) -> IP:
    """Words of the machine's order, in hexadecimal."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    found = ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found
