"""Connection tracking entries: find those of a mapped port, and forget them (ctnetlink).

The kernel looks for the entries itself (CTA_FILTER, since Linux 5.8); older ones give the whole
table, so that every entry is compared here again.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from .netlink import Netlink, Request, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.spec.addresses import IP

_NETLINK_NETFILTER = 12
# linux/netfilter/nfnetlink_conntrack.h
_CT_GET, _CT_DELETE = (1 << 8) | 1, (1 << 8) | 2
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE, _IP_DESTINATION = {4: 1, 6: 3}, {4: 2, 6: 4}
_PROTO_NUMBER, _PROTO_SOURCE_PORT, _PROTO_DESTINATION_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
# Which fields of a tuple count.
_BY_SOURCE, _BY_DESTINATION, _BY_NUMBER, _BY_DESTINATION_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 5
_NESTED = 0x8000

_GENERIC = struct.Struct("=BBH")
_NLMSG_BYTES = 16
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_NUMBER = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}


class Flow(NamedTuple):
    """An entry: where the first packet was sent to, and where the answers come from."""

    version: int
    protocol: int
    destination: IP
    destination_port: int
    answering: IP
    answering_port: int
    key: bytes


def to_port(
    netlink: Netlink,
    version: int,
    protocol: str,
    port: int,
    *,
    destination: IP | None = None,
    answering: IP | None = None,
) -> list[Flow]:
    """The flows that were sent to a port: to one address, or answered by one, if given.

    Raises KernelError.
    """
    number = _NUMBER[protocol]
    ports = attribute(_PROTO_NUMBER, bytes([number]))
    ports += attribute(_PROTO_DESTINATION_PORT, struct.pack(">H", port))
    flags = _BY_NUMBER | _BY_DESTINATION_PORT
    original = _nested(_TUPLE_PROTO, ports)
    if destination is not None:
        flags |= _BY_DESTINATION
        address = attribute(_IP_DESTINATION[version], destination.packed)
        original += _nested(_TUPLE_IP, address)
    wanted = attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", flags))
    message = _nested(_TUPLE_ORIG, original)
    if answering is not None:
        address = attribute(_IP_SOURCE[version], answering.packed)
        message += _nested(_TUPLE_REPLY, _nested(_TUPLE_IP, address))
        wanted += attribute(_FILTER_REPLY_FLAGS, struct.pack("=I", _BY_SOURCE))
    message = _GENERIC.pack(_FAMILY[version], 0, 0) + message + _nested(_FILTER, wanted)
    request = Request(f"list the flows to {protocol} port {port}", _CT_GET, message)
    return [
        flow
        for flow in _flows(version, netlink.dump(request))
        if (flow.protocol, flow.destination_port) == (number, port)
        and destination in (None, flow.destination)
        and answering in (None, flow.answering)
    ]


def opened() -> Netlink:
    """A socket for these requests, in the namespace that the thread is in. Raises KernelError."""
    return Netlink(protocol=_NETLINK_NETFILTER)


def forget(netlink: Netlink, flows: Iterable[Flow]) -> None:
    """Have the next packet of each flow looked at as a first one. Raises KernelError."""
    gone = frozenset({errno.ENOENT})
    requests = []
    for flow in flows:
        message = _GENERIC.pack(_FAMILY[flow.version], 0, 0) + flow.key
        what = f"forget a flow to {flow.destination} port {flow.destination_port}"
        requests.append(Request(what, _CT_DELETE, message, tolerate=gone))
    netlink.submit(*requests)


def _flows(version: int, bodies: list[bytes]) -> Iterator[Flow]:
    for body in bodies:
        have = attributes(body, _NLMSG_BYTES + _GENERIC.size)
        original, reply = (_tuple(have.get(one, b"")) for one in (_TUPLE_ORIG, _TUPLE_REPLY))
        number = original[1].get(_PROTO_NUMBER, b"\0")[0]
        destination = original[0].get(_IP_DESTINATION[version])
        answering = reply[0].get(_IP_SOURCE[version])
        if destination is None or answering is None:
            continue
        key = attribute(_TUPLE_ORIG | _NESTED, have[_TUPLE_ORIG])
        key += b"".join(attribute(one, have[one]) for one in (_ZONE, _ID) if one in have)
        yield Flow(
            version,
            number,
            ip_address(destination),
            _port(original[1].get(_PROTO_DESTINATION_PORT)),
            ip_address(answering),
            _port(reply[1].get(_PROTO_SOURCE_PORT)),
            key,
        )


def _tuple(data: bytes) -> tuple[dict[int, bytes], dict[int, bytes]]:
    parts = attributes(data)
    return attributes(parts.get(_TUPLE_IP, b"")), attributes(parts.get(_TUPLE_PROTO, b""))


def _port(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")


def _nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | _NESTED, value)
