"""Instances as SkyDNS's records: what CoreDNS answers with them, and what others may write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cni_py.cluster.store import Record
from cni_py.services.instance import Instance, instance_id
from cni_py.services.skydns import Gathered, Layout, owner_of
from fixtures import coredns

LAYOUT = Layout()
WEB = Instance(
    service="web", id="c1-1", node="n1", network="containers", addresses=("10.1.0.2",), port=80
)

labels = st.from_regex("[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter("any".__ne__)
texts = st.text(
    st.characters(categories=["L", "N", "P", "S"], exclude_characters="\\"), max_size=99
)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
# The usual form of an address that has IPv4's in it is not the same in every version of Python.
v6 = st.ip_addresses(v=6).map(str).filter(lambda text: "." not in text)
instances = st.builds(
    Instance,
    service=labels,
    id=labels,
    node=names,
    network=names,
    addresses=st.lists(st.ip_addresses(v=4).map(str) | v6, min_size=1, max_size=8, unique=True).map(
        tuple
    ),
    port=st.integers(1, 65535),
    protocol=st.sampled_from(["tcp", "udp", "sctp"]),
    weight=st.integers(1, 65535),
    metadata=st.dictionaries(
        st.from_regex("[a-z0-9_][A-Za-z0-9_]{0,20}", fullmatch=True), texts, max_size=5
    ),
)
any_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def _record(key: str, value: bytes, created: int = 1) -> Record:
    return Record(key, value, created, created, 1)


def _gathered(*records: Record) -> Gathered:
    gathered = Gathered(LAYOUT)
    for one in records:
        gathered.put(one)
    return gathered


def _of(instance: Instance, created: int = 1) -> list[Record]:
    return [_record(key, value, created) for key, value in LAYOUT.records(instance).items()]


def test_a_record_is_as_skydns_writes_it():
    ((key, value),) = LAYOUT.records(WEB).items()
    assert key == "/skydns/internal/cluster/web/c1-1/1"
    assert json.loads(value) == {
        "host": "10.1.0.2", "port": 80, "priority": 10, "weight": 1, "ttl": 5,
        "CniPy": {"node": "n1", "network": "containers", "protocol": "tcp", "metadata": {}},
    }  # fmt: skip
    assert owner_of(value) == "n1"


@settings(max_examples=40)
@given(instances)
def test_what_is_written_is_read(instance):
    view = _gathered(*_of(instance)).view()
    assert view.instances == (instance,)
    assert not view.left_out
    assert {owner_of(one.value) for one in _of(instance)} == {instance.node}


@settings(max_examples=40)
@given(instances, st.integers(1, 1 << 62))
def test_coredns_answers_with_each_address_and_port(instance, lease):
    keys = LAYOUT.records(instance)
    of_version = {
        version: {one for one in instance.addresses if (":" in one) == (version == 6)}
        for version in (4, 6)
    }
    whole, own = f"{instance.service}.cluster.internal.", f"{instance.id}.{instance.service}"
    for name in (whole, f"{own}.cluster.internal."):
        for version, addresses in of_version.items():
            assert coredns.addresses(keys, name, version) == addresses
    for one in coredns.records(keys, whole, lease):
        # By chance a lease's number looks like less.
        assert one["ttl"] <= 5
    answer = coredns.srv(keys, whole)
    assert {one.port for one in answer} == {instance.port}
    targets = {one.target for one in answer}
    assert len(targets) == len(instance.addresses)
    for one in targets:
        found = coredns.addresses(keys, one, 4) | coredns.addresses(keys, one, 6)
        assert len(found) == 1
        assert found < set(instance.addresses) or found == set(instance.addresses)


def test_coredns_divides_by_weight():
    light, heavy = WEB, replace(WEB, id="c2-1", addresses=("10.1.0.3",), weight=3)
    answer = coredns.srv(LAYOUT.records(light) | LAYOUT.records(heavy), "web.cluster.internal.")
    assert [(one.target, one.weight) for one in answer] == [
        ("1.c1-1.web.cluster.internal.", 25), ("1.c2-1.web.cluster.internal.", 75)]  # fmt: skip


@given(st.binary(max_size=200) | any_json.map(lambda one: json.dumps(one).encode()))
def test_whatever_others_write_is_left_out_and_harms_nobody(value):
    folder = LAYOUT.folder("web")
    keys = [f"{folder}c1-1/2", f"{folder}other/1", f"{folder}other", f"{folder}a/b/c/d",
            f"{LAYOUT.folder()}ä/\udcff/1", f"{folder}other/01", f"{folder}other/+1"]  # fmt: skip
    view = _gathered(*_of(WEB), *(_record(one, value) for one in keys)).view()
    assert view.instances == (WEB,)
    assert {one.key for one in view.left_out} == set(keys)
    assert all(one.reason.isascii() and one.reason.isprintable() for one in view.left_out)
    assert owner_of(value) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"host": "no address"}, "IPv4 or IPv6"),
        ({"host": "fe80::1%eth0"}, "usual form"),
        ({"port": 0}, "port 0"),
        ({"port": "80"}, "port"),
        ({"weight": -1}, "weight -1"),
        ({"CniPy": None}, "somebody else"),
        ({"CniPy": {"node": "", "network": "n"}}, "node"),
        ({"CniPy": {"node": "n\n", "network": "n"}}, "node"),
        ({"CniPy": {"node": "n", "network": "n", "protocol": "icmp"}}, "protocol"),
        ({"CniPy": {"node": "n", "network": "n", "metadata": {"a b": ""}}}, "metadata"),
        ({"CniPy": {"node": "n", "network": "n", "metadata": {"a": "x" * 513}}}, "metadata"),
        ({"text": "x" * 70_000}, "65536 bytes"),
    ],
)
def test_a_damaged_record_is_left_out_with_the_reason(change, reason):
    ((key, value),) = LAYOUT.records(replace(WEB, id="damaged")).items()
    damaged = json.dumps(json.loads(value) | change).encode()
    view = _gathered(*_of(WEB), _record(key, damaged)).view()
    assert view.instances == (WEB,)
    (left_out,) = view.left_out
    assert left_out.key == key
    assert reason in left_out.reason


def test_of_records_that_contradict_each_other_the_oldest_is_believed():
    both = replace(WEB, addresses=("10.1.0.2", "fd00::2"))
    first, second = _of(both)
    for change in ({"port": 81}, {"node": "n2"}, {"weight": 2}, {"network": "other"}):
        _, other = _of(replace(both, **change), created=2)
        view = _gathered(first, other).view()
        assert view.instances == (WEB,)
        assert [one.key for one in view.left_out] == [second.key]
        old = Record(second.key, other.value, 0, 0, 1)
        (kept,) = _gathered(first, old).view().instances
        assert kept.addresses == ("fd00::2",)


def test_an_address_too_much_is_left_out():
    folder = LAYOUT.folder("web", "c1-1")
    (value,) = LAYOUT.records(WEB).values()
    twice = [_record(f"{folder}{one}", value, created=9 - one) for one in range(1, 5)]
    view = _gathered(*twice).view()
    assert view.instances == (WEB,)
    assert [one.key for one in view.left_out] == [f"{folder}{one}" for one in (1, 2, 3)]
    many = replace(WEB, addresses=tuple(f"10.1.0.{one}" for one in range(1, 9)))
    (other,) = LAYOUT.records(replace(WEB, addresses=("10.9.9.9",))).values()
    view = _gathered(*_of(many), _record(f"{folder}9", other, created=2)).view()
    assert view.instances == (many,)
    assert "9 addresses" in view.left_out[0].reason


def test_what_comes_and_goes_is_what_is_there():
    gathered = _gathered(*_of(replace(WEB, addresses=("10.1.0.2", "fd00::2"))))
    first, second = (one.key for one in _of(replace(WEB, addresses=("10.1.0.2", "fd00::2"))))
    gathered.remove(first)
    assert gathered.view().instances[0].addresses == ("fd00::2",)
    gathered.put(_record(f"{LAYOUT.folder()}stranger", b""))
    assert len(gathered.view("away").left_out) == 1
    for one in (second, second, first, f"{LAYOUT.folder()}stranger", "elsewhere"):
        gathered.remove(one)
    assert gathered.view() == Gathered(LAYOUT).view()


@pytest.mark.parametrize(
    "domain", ["", "a..b", "A.b", "a/b", "a.b.", ".", "a" * 64, "a." * 99 + "a"]
)
def test_a_domain_that_is_none(domain):
    with pytest.raises(ValueError, match="no domain"):
        Layout(domain=domain)


@pytest.mark.parametrize("prefix", ["", "/", "skydns", "/a/b", "/skydns/", "//a"])
def test_a_prefix_that_coredns_would_take_for_labels(prefix):
    with pytest.raises(ValueError, match="is not /skydns"):
        Layout(prefix)


@given(st.text(), st.text(), st.text(), labels, st.integers(), st.sampled_from(["tcp", "udp"]))
def test_an_id_is_a_label_whatever_it_is_made_of(node, container, ifname, service, port, protocol):
    made = instance_id(node, container, ifname, service, port, protocol)
    assert replace(WEB, id=made).id == made
    for other in (
        instance_id(node + "x", container, ifname, service, port, protocol),
        instance_id(node, container, ifname + "x", service, port, protocol),
        instance_id(node, container, ifname, service, port + 1, protocol),
    ):
        assert other != made
