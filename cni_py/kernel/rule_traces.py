"""nftables' own account of a packet (`meta nftrace set 1`; linux/netfilter/nf_tables.h)."""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import kernel_error
from .netlink import attributes
from .nft_table import Table, field, match
from .nftables import in_words, nftables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import IP

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_GROUP_TRACES = 9
_TRACE = (10 << 8) | 17
_HEADER = struct.Struct("=IHHII")
_NFGENMSG_BYTES = 4
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _POLICY, _CODE = 1, 2, 3, 4, 5, 16, 1
_TYPES = {1: "policy", 2: "return", 3: "rule"}
_CODES = {0: "drop", 1: "accept", -1: "continue", -3: "jump", -4: "goto", -5: "return"}
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
# Before whatever else there is: raw is -300.
_PRIORITY = -400
_RECEIVE_BYTES, _BUFFER_BYTES = 1 << 16, 1 << 21


class Traced(NamedTuple):
    """What one rule, or a chain's policy (`kind`), decided about a packet."""

    family: str
    table: str
    chain: str
    handle: int
    kind: str
    verdict: str


class Traces:
    """The kernel's reports on what is marked, of the namespace that this was opened in."""

    def __init__(self, sock: socket.socket, own: str) -> None:
        self._socket, self._own = sock, own

    def until(self, deadline: float) -> list[Traced]:
        """Those that come until `deadline` (of time.monotonic()), or until none comes any more."""
        found: list[Traced] = []
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(min(left, 0.2) if found else left)
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except TimeoutError:
                break
            except OSError as error:
                raise kernel_error("listen for what rules do", error) from error
            found += [one for one in read(data) if one.table != self._own]
        return found


@contextmanager
def tracing(destination: IP, protocol: str, port: int) -> Iterator[Traces]:
    """Have the kernel report on packets to there while the block runs. Raises KernelError.

    The table is this process's alone: the kernel takes it away with the process, however that ends.
    """
    table = Table("inet", f"cni_py_trace_{os.getpid()}")
    version = destination.version
    what: list[dict[str, Any]] = [match(field(version, "daddr"), str(destination))]
    if port:
        what.append(match({"payload": {"protocol": protocol, "field": "dport"}}, port))
    else:
        what.append(match({"meta": {"key": "l4proto"}}, _number(protocol)))
    what.append({"mangle": {"key": {"meta": {"key": "nftrace"}}, "value": 1}})
    nft = nftables()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            sock.bind((0, 0))
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_TRACES)
        except OSError as error:
            raise kernel_error("listen for what rules do", error) from error
        nft.apply("trace packets", in_words(f"add table {table} {{ flags owner; }}"))
        try:
            for hook in ("prerouting", "output"):
                chain = table.hook(hook, "filter", hook, _PRIORITY)
                nft.apply("trace packets", {"add": {"chain": chain}}, table.rule(hook, *what))
            yield Traces(sock, table.name)
        finally:
            nft.apply("stop tracing", {"delete": {"table": table.add()["add"]["table"]}})


def _number(protocol: str) -> str:
    return {"icmpv6": "ipv6-icmp"}.get(protocol, protocol)


def read(data: bytes) -> Iterator[Traced]:
    """The traces in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        if kind == _TRACE:
            family = data[offset + _HEADER.size]
            have = attributes(data[offset : offset + length], _HEADER.size + _NFGENMSG_BYTES)
            yield _traced(family, have)
        offset += (length + 3) & ~3


def _traced(family: int, have: dict[int, bytes]) -> Traced:
    kind = _TYPES.get(int.from_bytes(have.get(_TYPE, b""), "big"), "")
    verdict = attributes(have.get(_VERDICT, b"")).get(_CODE, b"")
    code = have.get(_POLICY, b"") if kind == "policy" else verdict
    return Traced(
        _FAMILIES.get(family, str(family)),
        _text(have.get(_TABLE, b"")),
        _text(have.get(_CHAIN, b"")),
        int.from_bytes(have.get(_HANDLE, b""), "big"),
        kind,
        _CODES.get(int.from_bytes(code, "big", signed=True), "queue") if code else "",
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
