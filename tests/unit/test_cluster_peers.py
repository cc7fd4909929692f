"""Who is believed does not depend on the order in which records came, and is quick to keep up."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_py.cluster.flannel import NodeLease, Subnets, Vxlan
from cni_py.cluster.flannel_network import parse_network
from cni_py.cluster.peers import Judge, Peers, node_of
from cni_py.cluster.store import Record

PREFIX = "/coreos.com/network"
NETWORK = parse_network(
    b'{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48",'
    b'"Backend":{"Type":"vxlan"}}'
)


def lease(
    v4: str | None, v6: str | None = None, host: int = 1, mac: int = 1, backend: str = "vxlan"
) -> NodeLease:
    subnets = Subnets(v4 and IPv4Network(v4), v6 and IPv6Network(v6))
    data = msgspec.json.encode(Vxlan(mac=f"26:8a:1f:00:{mac >> 8:02x}:{mac & 255:02x}"))
    return NodeLease(subnets, IPv4Address("192.168.0.0") + host, None, backend, data)


def record(one: NodeLease, created: int, modified: int = 0) -> Record:
    key = f"{PREFIX}/{one.subnets.key}"
    return Record(key, one.encode(), created, modified or created, 1)


OWN = lease("10.5.1.0/24", "fc00:0:0:1::/64", 1, 1)


def from_scratch(records: list[Record]) -> Peers:
    judge = Judge(PREFIX, NETWORK, OWN)
    for one in records:
        judge.put(one)
    return judge.peers()


def overlaps(one: NodeLease, other: NodeLease) -> bool:
    pairs = ((one.subnets.v4, other.subnets.v4), (one.subnets.v6, other.subnets.v6))
    return any(a and b and a.overlaps(b) for a, b in pairs)


def believed(leases: dict[str, tuple[int, NodeLease]]) -> list[NodeLease]:
    """The rule, as it is told: the older first, each against all that were believed before it."""
    found = [OWN]
    for _, one in sorted(leases.values(), key=lambda one: (one[0], one[1].subnets.key)):
        taken = any(
            overlaps(one, other) or (one.data == other.data and one.public_ip != other.public_ip)
            for other in found
        )
        own = one.subnets.key == OWN.subnets.key or one.public_ip == OWN.public_ip
        if not taken and not own and one.backend_type == "vxlan":
            found.append(one)
    return found[1:]


def of_few() -> st.SearchStrategy[NodeLease]:
    """Leases that often have something in common."""
    v4 = st.builds(
        lambda place, length: str(IPv4Network((0x0A050000 | place << 8, length), strict=False)),
        st.integers(0, 7),
        st.sampled_from([20, 22, 23, 24, 24, 24, 26]),
    )
    v6 = st.builds("fc00:0:0:{:x}::/64".format, st.integers(0, 5)) | st.none()
    few = st.integers(1, 6)
    return st.builds(lease, v4, v6, few, few, st.sampled_from(["vxlan", "vxlan", "host-gw"]))


@settings(deadline=None)
@given(
    st.lists(st.tuples(of_few(), st.integers(1, 9), st.booleans(), st.booleans()), max_size=30),
    st.randoms(),
)
def test_it_judges_as_if_from_scratch(steps, dice):
    judge = Judge(PREFIX, NETWORK, OWN)
    there: dict[str, tuple[int, NodeLease]] = {}
    for one, created, goes, looks in steps:
        mine = record(one, created)
        if goes:
            judge.drop(mine.key)
            there.pop(mine.key, None)
        else:
            judge.put(mine)
            there[mine.key] = created, one
        if looks:
            judge.peers()
    found = judge.peers()
    assert list(found.leases) == believed(there)
    assert found.nodes == tuple(node_of(one) for one in found.leases)
    records = [record(one, created) for created, one in there.values()]
    dice.shuffle(records)
    assert from_scratch(records) == found
    own = [one for one in records if one.key == f"{PREFIX}/{OWN.subnets.key}"]
    assert len(found.leases) + len(found.refused) + len(own) == len(there)


def test_a_change_has_only_those_judged_that_it_concerns(monkeypatch):
    judge = Judge(PREFIX, NETWORK, OWN)
    for number in range(2, 202):
        judge.put(record(lease(f"10.5.{number}.0/24", None, number, number), number))
    before = judge.peers()
    judged = []
    together = judge._judge_together
    monkeypatch.setattr(
        judge, "_judge_together", lambda claims: (judged.append(len(claims)), together(claims))
    )
    # One that comes, one that moves into another's place, which is refused, until that one goes.
    judge.put(record(lease("10.5.250.0/24", None, 250, 250), 250))
    assert len(judge.peers().leases) == len(before.leases) + 1
    judge.put(record(lease("10.5.7.0/25", None, 251, 251), 251))
    assert len(judge.peers().refused) == 1
    judge.drop(f"{PREFIX}/subnets/10.5.7.0-24")
    after = judge.peers()
    assert (len(after.leases), after.refused) == (len(before.leases) + 1, ())
    assert judged == [1, 2, 1]
    # Whoever has not changed is the same object: comparing two views is quick.
    assert sum(one is other for one in after.nodes for other in before.nodes) == 199
