"""What comes from the wire and from the daemon's callers: packets, options, requests."""

from __future__ import annotations

import json
import random
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import msgspec

from cni_py.dhcp import client, lease, protocol
from cni_py.kernel import addresses, dhcp_messages, routes
from cni_py.spec.attachment import Attachment
from cni_py.spec.conversion import to_wire
from cni_py.spec.errors import CniError
from fuzz.target import require_reportable, require_told, split

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = ("acquire", "kept", "lookup", "release", "collect", "ping", "say", "attachment", "options")
_MAC = bytes.fromhex("020000000001")
_OPTIONS = {
    1: b"\xff\xff\xff\0", 3: b"\n\1\0\1", 6: b"\n\1\0\1\n\1\0\2", 12: b"h", 15: b"a.b c.d",
    26: b"\5\xdc", 33: b"\n\2\0\0\n\1\0\1", 51: b"\0\0\1\0", 54: b"\n\1\0\1", 56: b"no",
    58: b"\0\0\0\x20", 59: b"\0\0\0\x40",
    119: b"\1a\1b\0\1c\xc0\2", 121: b"\x08\n\n\1\0\1\0\n\1\0\1",
}  # fmt: skip


def seeds() -> Iterator[bytes]:
    for kind in (client.OFFER, client.ACK, client.NAK):
        message = dhcp_messages.Message(
            2, 1, _MAC, {53: bytes((kind,)), **_OPTIONS}, yiaddr=IPv4Address("10.1.0.9")
        )
        data = dhcp_messages.encode(message)
        yield b"message\n" + data
        packet = bytearray(
            dhcp_messages.datagram(data, IPv4Address("10.1.0.1"), dhcp_messages.BROADCAST)
        )
        packet[20:24] = bytes((0, 67, 0, 68))
        yield b"packet\n" + bytes(packet)
    attachment = Attachment("n", "c", "e")
    for asked in (
        protocol.Acquire(attachment=attachment, netns="/n", options={61: b"id"}),
        protocol.Kept(), protocol.LookUp(attachment=attachment),
        protocol.Release(attachment=attachment), protocol.Ping(),
        protocol.List(network="n"),
    ):  # fmt: skip
        yield b"asked\n" + protocol.line(asked)
    got = lease.lease_of(IPv4Address("10.1.0.9"), _OPTIONS, _MAC, 1.0)
    for answer in (
        protocol.Found(lease=got),
        protocol.Failed(code=11, msg="m"),
        protocol.Begun(seconds=3.0),
    ):
        yield b"answer\n" + protocol.line(answer)


def run(data: bytes) -> None:
    words, content = split(data)
    try:
        match words[0] if words else "":
            case "packet":
                _message(dhcp_messages.payload(content, checksum_ready=False))
            case "asked":
                json.loads(protocol.line(protocol.read_asked(content)))
            case "answer":
                answer = protocol.read_answer(content)
                if isinstance(answer, protocol.Found) and answer.lease is not None:
                    _result(answer.lease)
            case _:
                _message(content)
    except ValueError as error:
        require_told(error)
    except CniError as error:
        require_reportable(error, data)


def _message(data: bytes) -> None:
    message = dhcp_messages.decode(data)
    again = dhcp_messages.decode(dhcp_messages.encode(message))
    assert again._replace(options={}) == message._replace(options={})
    _talk(message)


def _talk(message: dhcp_messages.Message) -> None:
    """A client hears it in each of its states, and answers it as an own message can be sent."""
    one = client.Client(client.Identity(_MAC, {61: b"id"}), client.Terms(), random.Random(1))
    one.begin(0.0)
    now = 0.0
    for kind in (client.OFFER, client.ACK, client.NAK, 0, client.ACK):
        options = {**message.options, 53: bytes((kind,))} if kind else message.options
        heard = message._replace(op=2, xid=one._xid, chaddr=_MAC, options=options)
        for action in one.hear(heard, _MAC, now):
            _action(action)
        assert one.deadline > now or one.state is client.State.BOUND
        now = min(one.deadline, now + 1e6) + 0.5
        for action in one.advance(now):
            _action(action)


def _action(action: client.Action) -> None:
    if isinstance(action, client.Send):
        assert action.message.chaddr == _MAC
        dhcp_messages.encode(action.message)
    elif isinstance(action, client.Bound):
        stored = msgspec.json.decode(msgspec.json.encode(action.lease), type=lease.Lease)
        assert stored == action.lease
        try:
            _result(stored)
        except CniError as error:
            require_reportable(error, b"")


def _result(got: lease.Lease) -> None:
    """What a runtime and the kernel are told of the lease."""
    result = lease.result_of(got, 0)
    msgspec.json.encode(to_wire(result, "1.1.0"))
    for ip in result.ips:
        addresses.add(1, "eth0", ip.address)
    for route in result.routes:
        routes.add(1, "eth0", route, route.gw)
    assert got.mtu == 0 or 68 <= got.mtu < 65536
