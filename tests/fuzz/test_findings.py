"""What fuzzing has found, each as what should happen instead."""

from ipaddress import ip_interface

import msgspec
import pytest

from cni_py.dhcp import protocol
from cni_py.dhcp import store as dhcp_store
from cni_py.ipam.ranges import RangeConfig, range_sets
from cni_py.kernel import iptables, routes
from cni_py.plugins import host_device_record, port_mappings, sbr_record, tuning_backup
from cni_py.plugins.records import Records
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import Route

from .targets import state

LISTING = """-P INPUT ACCEPT
-N X
-A X -m comment --comment "a\u2028-A X -j DROP\x85\x0bb" -j ACCEPT
-A X -m comment --comment "two
lines" -j RETURN
"""


def test_listing_with_line_separators_in_a_comment(monkeypatch):
    """Somebody's comment neither stops a call, nor passes for a rule."""
    monkeypatch.setattr(iptables, "_run", lambda *_: LISTING)
    chains = iptables.chains(4, "filter")
    assert list(chains) == ["INPUT", "X"]
    assert len(chains["X"]) == 2
    assert chains["X"][0].endswith("-j ACCEPT")
    assert len(iptables.rules(4, "filter", "X")) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mtu", 2**32),
        ("mtu", -1),
        ("advmss", 2**32),
        ("priority", 2**32),
        ("priority", -1),
        ("table", 2**32),
        ("table", -1),
        ("scope", 256),
    ],
)
def test_route_numbers_that_the_kernel_does_not_have(key, value):
    route = Route(ip_interface("10.0.0.0/8"), **{key: value})
    with pytest.raises(CniError) as caught:
        routes.add(1, "eth0", route, None)
    assert caught.value.code == Code.INVALID_CONFIG
    assert f"{key} {value}" in caught.value.msg


@pytest.mark.parametrize("key", ["mtu", "advmss", "priority", "table"])
def test_the_largest_route_numbers(key):
    routes.add(1, "eth0", Route(ip_interface("10.0.0.0/8"), **{key: 2**32 - 1}), None)


def record_of(name):
    """The seed's record as JSON that can be changed."""
    seed = next(one for one in state.seeds() if one.startswith(name.encode() + b"\n"))
    return msgspec.json.decode(seed.partition(b"\n")[2])


# base64 of what is too short for a message, and of a route whose destination has host bits.
CUT_SHORT = "AAEC"
HOST_BITS = msgspec.json.decode(
    msgspec.json.encode(bytes((2, 8, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 1, 1, 1)))
)
DAMAGED = [
    ("host-device", host_device_record.Record, {"addresses": [CUT_SHORT]}),
    ("sbr", sbr_record.Record, {"removed": [CUT_SHORT]}),
    ("sbr", sbr_record.Record, {"removed": [HOST_BITS]}),
    ("sbr", sbr_record.Record, {"replaced": ["10.1.0.0"]}),
    ("sbr", sbr_record.Record, {"rules": [{"source": "x", "table": 100, "has_routes": True}]}),
    ("portmap", port_mappings.Record, {"addresses": []}),
    ("portmap", port_mappings.Record, {"addresses": ["x"]}),
]


@pytest.mark.parametrize(("name", "kind", "changed"), DAMAGED)
def test_record_that_says_what_cannot_be(name, kind, changed, tmp_path, capsys):
    """It is damaged: DEL goes on without it."""
    records = Records(str(tmp_path / name), kind)
    path = tmp_path / name / f"{state.ATTACHMENT.key}.json"
    path.parent.mkdir()
    whole = record_of(name)
    path.write_bytes(msgspec.json.encode(whole))
    assert records.load(state.ATTACHMENT) is not None
    path.write_bytes(msgspec.json.encode(whole | changed))
    assert records.load(state.ATTACHMENT) is None
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changed", [{"addresses": [CUT_SHORT]}, {"routes": [CUT_SHORT]}, {"routes": [HOST_BITS]}]
)
def test_tuning_file_that_says_what_cannot_be(changed, tmp_path, capsys):
    path = tmp_path / "c1_eth0.json"
    whole = record_of("tuning")
    path.write_bytes(msgspec.json.encode(whole))
    assert tuning_backup.read(str(path))[1] is not None
    whole["cni-py"] |= changed
    path.write_bytes(msgspec.json.encode(whole))
    assert tuning_backup.read(str(path))[1] is None
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changed",
    [
        {"lease": {"address": "x"}},
        {"lease": {"server": "10.1.0"}},
        {"lease": {"server_mac": CUT_SHORT}},
        {"lease": {"options": {"256": CUT_SHORT}}},
        {"options": {"-1": CUT_SHORT}},
    ],
)
def test_lease_that_cannot_be_does_not_keep_the_daemon_from_starting(changed, tmp_path, capsys):
    store = dhcp_store.Store(str(tmp_path))
    path = tmp_path / f"{state.ATTACHMENT.key}.json"
    whole = record_of("dhcp")
    path.write_bytes(msgspec.json.encode(whole))
    assert len(list(store.records())) == 1
    for key, value in changed.items():
        whole[key] = whole[key] | value
    path.write_bytes(msgspec.json.encode(whole))
    assert list(store.records()) == []
    assert "damaged" in capsys.readouterr().err


def test_request_with_an_option_that_does_not_exist():
    line = b'{"say":"acquire","attachment":["n","c","e"],"netns":"/n","options":{"300":""}}'
    with pytest.raises(ValueError, match="code"):
        protocol.read_asked(line)


def test_many_range_sets_are_compared_in_order():
    """A megabyte of them took minutes, each with each."""
    sets = [
        ((RangeConfig(subnet=ip_interface(f"10.{one // 256}.{one % 256}.0/24")),), f"x[{one}]")
        for one in range(20_000)
    ]
    assert len(range_sets(sets, "1.1.0")) == 20_000
    with pytest.raises(CniError, match="range set 7 overlaps with 20000"):
        range_sets([*sets, (sets[7][0], "x[20000]")], "1.1.0")
