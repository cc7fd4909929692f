"""Whether somebody has taken rules away: nftables' events, without asking again and again.

iptables-nft is nftables to the kernel, so its restores show as well; iptables-legacy's do not.
"""

from __future__ import annotations

import errno
import socket
import struct

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
# linux/netfilter/nfnetlink.h and nf_tables.h
_NFNLGRP_NFTABLES = 7
_SUBSYSTEM_NFTABLES = 10
_DELTABLE, _DELCHAIN = 2, 5
_TABLE_NAME, _CHAIN_NAME = 1, 3
_HEADER = struct.Struct("=IHHII")
_NFGENMSG_BYTES = 4
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 20

# Tables that have rules of ours, or whose end tells of a reload.
_TABLES = frozenset({"cni_py", "filter", "nat", "firewalld"})
# The chains of iptables that nothing of ours ever deletes.
_CHAINS = ("CNI-FORWARD", "CNI-ISOLATION-", "CNI-HOSTPORT-")


class RuleEvents:
    """A socket with the events of the namespace that it is opened in. Raises OSError."""

    def __init__(self) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.socket = socket.socket(socket.AF_NETLINK, flags, _NETLINK_NETFILTER)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self.socket.bind((0, 0))
        self.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)

    def lost(self) -> bool:
        """Read what has come: whether a table or chain of ours is gone, or events were lost."""
        found = False
        while True:
            try:
                data = self.socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
            else:
                found = any_of_ours(data) or found


def any_of_ours(data: bytes) -> bool:
    """Whether netlink messages tell of a deleted table or chain that matters."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return False
        if kind >> 8 == _SUBSYSTEM_NFTABLES:
            body = data[offset + _HEADER.size + _NFGENMSG_BYTES : offset + length]
            if kind & 0xFF == _DELTABLE and _text(body, _TABLE_NAME) in _TABLES:
                return True
            if kind & 0xFF == _DELCHAIN and _text(body, _CHAIN_NAME).startswith(_CHAINS):
                return True
        offset += length + 3 & ~3
    return False


def _text(body: bytes, wanted: int) -> str:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        if kind & 0x3FFF == wanted:
            return (
                body[offset + _ATTRIBUTE.size : offset + length]
                .rstrip(b"\0")
                .decode(errors="replace")
            )
        offset += length + 3 & ~3
    return ""
