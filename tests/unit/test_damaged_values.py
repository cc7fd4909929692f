"""Values of the right type that nobody can use: found by fuzzing, told before anything is done."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import msgspec
import pytest

from cni_py.dhcp.lease import Lease
from cni_py.dhcp.protocol import Acquire, read_asked
from cni_py.kernel import addresses, kept_routes, routes
from cni_py.plugins import sbr_record, tuning_backup
from cni_py.spec.attachment import Attachment
from cni_py.spec.errors import CniError
from cni_py.spec.results import Route

LEASE = {
    "address": "10.1.2.3",
    "server": "10.1.2.1",
    "server_mac": "AgAAAAAB",
    "options": {},
    "since": 0.0,
    "renew": 1.0,
    "rebind": 2.0,
    "expire": 3.0,
}
RECORD = {
    "attachment": ["net1", "c1", "eth0"],
    "boot": "b",
    "sandbox": {"path": "/run/netns/c1", "cookie": 1, "device": 1, "inode": 1},
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"mtu": -1},
        {"mtu": 2**32},
        {"advmss": -1},
        {"priority": 2**40},
        {"table": -2},
        {"scope": 256},
    ],
)
def test_route_out_of_range(wrong: dict[str, int]) -> None:
    """The kernel's messages have 32 bits, or 8 for a scope."""
    route = Route(dst=ip_interface("10.0.0.0/8"), gw=ip_address("10.1.2.1"), **wrong)
    with pytest.raises(CniError) as caught:
        routes.add(1, "eth0", route, route.gw)
    ((key, value),) = wrong.items()
    assert caught.value.code == 7
    assert f"has the {key} {value}" in caught.value.msg


@pytest.mark.parametrize(
    "wrong",
    [{"address": "x"}, {"server": "10.1"}, {"server_mac": "AgAA"}, {"options": {0: "AA=="}}],
)
def test_lease(wrong: dict[str, object]) -> None:
    """A daemon that resumes such a record would fail in the middle of its work."""
    assert msgspec.json.decode(msgspec.json.encode(LEASE), type=Lease).ip
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(LEASE | wrong), type=Lease)


def test_request_with_no_option() -> None:
    """An option's code is 1 to 254."""
    asked = Acquire(attachment=Attachment("n", "c", "i"), netns="/x", options={60: b"x"})
    data = msgspec.json.encode(asked)
    assert read_asked(data) == asked
    with pytest.raises(ValueError, match="code"):
        read_asked(data.replace(b'"60"', b'"300"'))


def test_messages_cut_short() -> None:
    """What is kept of the kernel's messages must be whole to be put back."""
    with pytest.raises(ValueError, match="cut short"):
        kept_routes.read(b"\x02")
    with pytest.raises(ValueError, match="cut short"):
        addresses.require_message(b"\x02")
    for wrong in ({"addresses": ["AA=="]}, {"routes": ["AA=="]}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode(RECORD | wrong), type=tuning_backup.Own)


def test_record_that_cannot_be_undone() -> None:
    """sbr: sources and subnets are addresses, routes are messages."""
    whole = {"rules": [], "removed": [], "replaced": ["10.0.0.0/8"]}
    missing = {
        one.name: []
        for one in msgspec.structs.fields(sbr_record.Record)
        if one.required and one.name not in {*RECORD, *whole}
    }
    assert missing == {}
    msgspec.json.decode(msgspec.json.encode(RECORD | whole), type=sbr_record.Record)
    for wrong in ({"replaced": ["x"]}, {"removed": ["AA=="]}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode(RECORD | whole | wrong), type=sbr_record.Record)
