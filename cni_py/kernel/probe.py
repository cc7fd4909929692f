"""One real packet, sent from the namespace that the thread is in."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from .checksum import internet_checksum

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP

_ECHO = {4: (8, 0), 6: (128, 129)}
_PAYLOAD = b"cni-py trace"
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_UNREACHABLE = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENETDOWN}
)


class Answer(NamedTuple):
    """`answered`, `refused`, `silence`, or `unreachable`; `text` is what the kernel said."""

    kind: str
    text: str


def send(protocol: str, destination: IP, port: int, *, source: IP | None, seconds: float) -> Answer:
    """Send a SYN, a datagram or an echo request, and wait for what comes back.

    Silence on UDP may be a server's. Raises OSError where the probe itself cannot be made.
    """
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    kinds = {
        "tcp": (socket.SOCK_STREAM, 0),
        "udp": (socket.SOCK_DGRAM, 0),
        "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
        "icmp": (socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "icmpv6": (socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    }
    kind, number = kinds[protocol]
    with socket.socket(family, kind, number) as probe:
        if source is not None:
            probe.bind((str(source), 0))
        probe.settimeout(seconds)
        if family == socket.AF_INET:
            probe.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, int(protocol == "udp"))
        else:
            probe.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, int(protocol == "udp"))
        try:
            probe.connect((str(destination), port))
            if protocol in ("icmp", "icmpv6"):
                return _pinged(probe, destination, time.monotonic() + seconds)
            if protocol == "udp":
                probe.send(_PAYLOAD)
                probe.recv(1)
        except TimeoutError:
            return Answer("silence", f"nothing came back in {seconds:.0f} s")
        except ConnectionRefusedError as error:
            return Answer("refused", str(error.strerror))
        except OSError as error:
            if error.errno not in _UNREACHABLE:
                raise
            return Answer("unreachable", str(error.strerror))
    return Answer("answered", "it was answered")


def _pinged(probe: socket.socket, destination: IP, deadline: float) -> Answer:
    """Others' echoes come too, and whatever else has the protocol's number. Raises TimeoutError."""
    asked, answered = _ECHO[destination.version]
    identity = os.getpid() & 0xFFFF
    body = struct.pack("!HH", identity, 1) + _PAYLOAD
    expected = struct.pack("!BH", answered, identity)
    # Of ICMPv6 the kernel makes its own.
    checksum = internet_checksum(struct.pack("!BBH", asked, 0, 0) + body)
    probe.send(struct.pack("!BBH", asked, 0, checksum) + body)
    while True:
        probe.settimeout(_left(deadline))
        data = probe.recv(2048)
        # Of IPv4 a raw socket gives the header too.
        start = (data[0] & 0xF) * 4 if destination.version == 4 else 0
        if data[start : start + 1] + data[start + 4 : start + 6] == expected:
            return Answer("answered", "it was answered")


def _left(deadline: float) -> float:
    """The seconds until then. Raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
