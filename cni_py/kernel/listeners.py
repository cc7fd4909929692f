"""Which sockets of the namespace that the thread is in wait for packets (proc(5), net/tcp)."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from . import proc

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


def holder(address: IP, port: int, *, but: int | None = None, exactly: bool = False) -> str:
    """`process N (name)` whose sockets wait at a port of an address, `""` for nobody.

    `but` is a process that is passed over; `exactly` passes over sockets of all addresses. Raises
    OSError.
    """
    inodes = {
        inode
        for one, inode in _sockets()
        if one.takes(one.protocol, address, port) and not (exactly and one.address != address)
    }
    if not inodes:
        return ""
    return _owner({f"socket:[{one}]" for one in inodes}, but)


def _owner(sockets: set[str], but: int | None) -> str:
    own: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                link = os.readlink(f"/proc/{pid}/fd/{fd}")
                if link not in sockets:
                    continue
                if int(pid) != but:
                    return proc.described(int(pid))
                own.add(link)
    return "" if own == sockets else "a process that cannot be seen from here"


def _listeners() -> Iterator[Listener]:
    return (one for one, _ in _sockets())


def _sockets() -> Iterator[tuple[Listener, str]]:
    """The sockets that wait, and their inodes."""
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
                    yield Listener(protocol, _address(address), int(port, 16)), fields[9]


def _address(text: str) -> IP:
    """Words of the machine's order, in hexadecimal."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    found = ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found
