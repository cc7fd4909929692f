"""bandwidth on the kernel: what ADD sets, and that nothing of it stays."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from fixtures.configs import V4, V6, host_local, l2, l3, routed
from fixtures.dump import differences, dump
from fixtures.host import BIN, ROOT, Container, Host, refusal
from fixtures.leaks import leaks
from fixtures.shaping import (
    BOTH,
    BURST,
    EGRESS,
    INGRESS,
    RATE,
    block,
    check,
    classes,
    filters,
    host_end,
    limited,
    qdiscs,
)

TBF = {"kind": "tbf", "handle": "1:", "root": True}
ROUTES = ("ip", "-6", "route", "show", "table", "local", "dev", "cni0", "type", "multicast")
SUBNETS = ["10.9.0.0/16", "10.8.7.6/20", "fd00:9::/66"]


@pytest.fixture
def container(host: Host) -> Container:
    return host.container("c1", "cid1")


@pytest.fixture
def connected(host: Host, container: Container) -> dict[str, Any]:
    """The result of a bridge's ADD, once the kernel has made what it makes later."""
    result = host.add("bridge", l3(isGateway=True), container)
    deadline = time.monotonic() + 10
    while "ff00::/8" not in host.run(*ROUTES).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return result


def tbf(host: Host, device: str) -> dict[str, Any]:
    """The token bucket filter at the root of a link."""
    root = qdiscs(host, device)[0]
    assert {key: root[key] for key in TBF} == TBF, root
    options: dict[str, Any] = root["options"]
    return options


def test_both_directions(host: Host, container: Container, connected: dict[str, Any]) -> None:
    """[A.12] [6.2] A queue for each, a block for what the container sends, and packets pass."""
    result = host.add("bandwidth", limited(connected, **BOTH), container)
    name, port = block(result), host_end(result)
    for device in (name, port):
        options = tbf(host, device)
        # tc counts in bytes: 25 ms beside the burst wait at most.
        assert (options["rate"], options["burst"]) == (1_000_000, 100_000)
        assert options["lat"] == 25_000 or options["limit"] == 125_000
    link = host.link(name)
    assert link is not None
    assert (link["linkinfo"]["info_kind"], link["mtu"]) == ("ifb", 1500)
    assert link.get("txqlen", 0) == 0
    assert "UP" in link["flags"]
    assert link["ifalias"].endswith(", net: net1, if: eth0, id: cid1")
    assert [one["kind"] for one in qdiscs(host, port)] == ["tbf", "ingress"]
    listed = filters(host, port)
    assert "protocol all pref 1 u32" in listed
    assert "match 00000000/00000000 at 0" in listed
    assert listed.count("mirred") == 1
    assert f"Egress Redirect to device {name}) stolen" in listed
    assert container.reaches("10.1.2.1")
    assert result == connected | {
        "interfaces": [*connected["interfaces"], {"name": name, "mac": link["address"]}]
    }


@pytest.mark.parametrize("keys", [INGRESS, EGRESS, BOTH], ids=["ingress", "egress", "both"])
@pytest.mark.parametrize("subnets", ["", "unshapedSubnets", "shapedSubnets"])
def test_add_check_delete(
    host: Host,
    container: Container,
    connected: dict[str, Any],
    keys: dict[str, int],
    subnets: str,
) -> None:
    """[W-BW2] DEL leaves what there was before ADD, a second one too; then ADD works again."""
    before = dump(host)
    config = limited(connected, **keys, **({subnets: SUBNETS} if subnets else {}))
    result = host.add("bandwidth", config, container)
    assert len(result["interfaces"]) == 3 + ("egressRate" in keys)
    later = config | {"prevResult": result}
    assert check(host, later, container) == ""
    assert container.reaches("10.1.2.1")
    host.delete("bandwidth", later, container)
    assert differences(before, dump(host)) == ""
    host.delete("bandwidth", later, container)
    host.add("bandwidth", config, container)


def test_unshaped_subnets(host: Host, container: Container, connected: dict[str, Any]) -> None:
    """What subnets say: the other side's address. They pass the queue, and the block, by."""
    result = host.add("bandwidth", limited(connected, **BOTH, unshapedSubnets=SUBNETS), container)
    port = host_end(result)
    kinds = [(one["kind"], one["handle"]) for one in qdiscs(host, port)]
    assert kinds == [("htb", "1:"), ("bfifo", "2:"), ("ingress", "ffff:")]
    assert "default 0x1 " in host.run("tc", "qdisc", "show", "dev", port).stdout
    assert "rate 8Mbit ceil 8Mbit burst 100000b cburst 100000b" in classes(host, port)
    sorting, leading = filters(host, port, "1:"), filters(host, port)
    for text, at in ((sorting, (12, 8)), (leading, (16, 24))):
        assert f"match 0a090000/ffff0000 at {at[0]}" in text
        assert f"match 0a080000/fffff000 at {at[0]}" in text
        assert f"match fd000009/ffffffff at {at[1]}" in text
        assert f"match 00000000/c0000000 at {at[1] + 8}" in text
    assert sorting.count("flowid 1: ") == 3
    assert leading.count("mirred") == 1
    assert "protocol all pref 3 u32" in leading


def test_shaped_subnets(host: Host, container: Container, connected: dict[str, Any]) -> None:
    """The other way round: nothing else is limited."""
    result = host.add("bandwidth", limited(connected, **BOTH, shapedSubnets=SUBNETS), container)
    port = host_end(result)
    assert "default 0 " in host.run("tc", "qdisc", "show", "dev", port).stdout
    sorting, leading = filters(host, port, "1:"), filters(host, port)
    assert sorting.count("flowid 1:1 ") == 3
    assert leading.count(f"Egress Redirect to device {block(result)}") == 3
    assert "protocol all" not in leading


def test_many_subnets(host: Host, container: Container, connected: dict[str, Any]) -> None:
    """One batch of messages, and CHECK finds each again."""
    subnets = [f"10.{one // 256}.{one % 256}.0/24" for one in range(1000)]
    config = limited(connected, **BOTH, unshapedSubnets=subnets)
    result = host.add("bandwidth", config, container)
    assert filters(host, host_end(result)).count("match 0a") == 1000
    assert check(host, config | {"prevResult": result}, container) == ""


@pytest.mark.parametrize("subnet", ["0.0.0.0/0", "::/0", "10.1.2.1/32", "fd00:1::1/128"])
def test_extreme_subnets(
    host: Host, container: Container, connected: dict[str, Any], subnet: str
) -> None:
    config = limited(connected, **BOTH, shapedSubnets=[subnet])
    result = host.add("bandwidth", config, container)
    assert check(host, config | {"prevResult": result}, container) == ""
    assert container.reaches("10.1.2.1")


def test_rate_of_more_than_32_bits(
    host: Host, container: Container, connected: dict[str, Any]
) -> None:
    """[6.2] 80 Gbit/s are more bytes a second than 32 bits hold."""
    rates = {"ingressRate": 80 * 10**9, "ingressBurst": 8 * 10**9}
    config = limited(connected, **rates)
    result = host.add("bandwidth", config, container)
    assert "rate 80Gbit" in host.run("tc", "qdisc", "show", "dev", host_end(result)).stdout
    assert check(host, config | {"prevResult": result}, container) == ""
    slower = rates | {"ingressRate": 80 * 10**9 - 8}
    assert "rate in bytes/s of" in check(host, limited(result, **slower), container)
    host.delete("bandwidth", config, container)
    config |= {"shapedSubnets": ["10.0.0.0/8"]}
    result = host.add("bandwidth", config, container)
    assert "rate 80Gbit ceil 80Gbit" in classes(host, host_end(result))
    assert check(host, config | {"prevResult": result}, container) == ""


def test_burst_of_many_seconds(host: Host, container: Container, connected: dict[str, Any]) -> None:
    """What containerd gives as the burst: more ticks at 1 Mbit/s than 32 bits hold."""
    rates = {"ingressRate": 10**6, "ingressBurst": 2**31 - 1}
    config = limited(connected, runtimeConfig={"bandwidth": rates})
    result = host.add("bandwidth", config, container)
    assert check(host, config | {"prevResult": result}, container) == ""
    assert container.reaches("10.1.2.1")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
        {"runtimeConfig": {}},
        {"runtimeConfig": {"bandwidth": None}},
        {"runtimeConfig": {"bandwidth": BOTH}, "ingressRate": 0},
        {"unshapedSubnets": ["10.0.0.0/8"]},
    ],
)
def test_no_limits(
    host: Host, container: Container, connected: dict[str, Any], keys: dict[str, Any]
) -> None:
    """[6.2] The previous result, and no work."""
    before = dump(host)
    config = limited(connected, **keys)
    assert host.add("bandwidth", config, container) == connected
    assert differences(before, dump(host)) == ""
    assert check(host, config, container) == ""


@pytest.mark.parametrize("keys", [{}, BOTH])
def test_without_a_previous_result(host: Host, container: Container, keys: dict[str, int]) -> None:
    """[W-BW1] The reference panics where there are no limits either."""
    for verb in ("ADD", "CHECK"):
        error = refusal(host.call("bandwidth", verb, limited(**keys), container))
        assert (error["code"], error["msg"]) == (7, "Required prevResult missing")


def test_limits_of_the_runtime(host: Host, container: Container, connected: dict[str, Any]) -> None:
    """[1.6] The capability `bandwidth`."""
    config = limited(connected, runtimeConfig={"bandwidth": EGRESS})
    result = host.add("bandwidth", config, container)
    assert tbf(host, block(result))["rate"] == RATE // 8
    assert [one["kind"] for one in qdiscs(host, host_end(result))] == ["noqueue", "ingress"]


def test_mtu_of_the_block(host: Host, container: Container) -> None:
    connected = host.add("bridge", l3(mtu=1400), container)
    result = host.add("bandwidth", limited(connected, **EGRESS), container)
    link = host.link(block(result))
    assert link is not None
    assert link["mtu"] == 1400


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_protocol_versions(host: Host, container: Container, version: str) -> None:
    """[1.1] Since 0.3.0, whose results list interfaces."""
    connected = host.add("bridge", l3(cniVersion=version), container)
    config = limited(connected, cniVersion=version, **BOTH)
    result = host.add("bandwidth", config, container)
    assert result["cniVersion"] == version
    assert block(result)
    host.delete("bandwidth", config | {"prevResult": result}, container)


def test_older_versions_are_refused(host: Host, container: Container) -> None:
    for version in ("0.1.0", "0.2.0"):
        error = refusal(host.call("bandwidth", "ADD", limited(cniVersion=version), container))
        assert (error["code"], error["msg"]) == (1, "incompatible CNI versions")


def test_after_ptp(host: Host, container: Container) -> None:
    """[A.6] Also IPv6."""
    config = routed(ipam=host_local(V4, V6))
    connected = host.add("ptp", config, container)
    result = host.add("bandwidth", limited(connected, **BOTH), container)
    for address in ("10.1.2.1", "fd00:1::1"):
        assert container.reaches(address)
    assert check(host, limited(result, **BOTH), container) == ""


def test_two_interfaces_of_a_container(host: Host, container: Container) -> None:
    """[W-BW3] Each has its own block, and the DEL of one leaves the other's."""
    results = {}
    for ifname, subnet in (("eth0", V4), ("eth1", [{"subnet": "10.1.3.0/24"}])):
        bridge = "cni0" if ifname == "eth0" else "cni1"
        config = l3(bridge=bridge, isGateway=True, ipam=host_local(subnet))
        connected = host.add("bridge", config, container, ifname)
        results[ifname] = host.add("bandwidth", limited(connected, **BOTH), container, ifname)
    first, second = block(results["eth0"]), block(results["eth1"])
    assert first != second
    for ifname, result in results.items():
        assert check(host, limited(result, **BOTH), container, ifname) == ""
    host.delete("bandwidth", limited(results["eth0"], **BOTH), container)
    assert host.link(first) is None
    assert check(host, limited(results["eth1"], **BOTH), container, "eth1") == ""
    assert container.reaches("10.1.3.1")
    host.delete("bandwidth", limited(), container, "eth1")
    assert host.link(second) is None


def test_second_add(host: Host, container: Container, connected: dict[str, Any]) -> None:
    """[W-BW2] Refused, and nothing has changed, whichever direction it asks for."""
    host.add("bandwidth", limited(connected, **BOTH), container)
    before = dump(host)
    for keys, place in ((INGRESS, "root"), (EGRESS, "ingress"), (BOTH, "root")):
        error = refusal(host.call("bandwidth", "ADD", limited(connected, **keys), container))
        assert error["msg"].endswith(f"has a qdisc at its {place} already")
        assert "DEL comes before the next ADD" in error["details"]
        assert differences(before, dump(host)) == ""


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("tc qdisc add dev {} root handle 7: bfifo limit 9000", BOTH),
        ("tc qdisc add dev {} clsact", BOTH),
        ("tc qdisc add dev {} ingress", EGRESS),
    ],
)
def test_queues_of_others(
    host: Host,
    container: Container,
    connected: dict[str, Any],
    command: str,
    keys: dict[str, int],
) -> None:
    """[W-BW2] They are not touched, and what has been set before them goes again."""
    host.run(*command.format(host_end(connected)).split())
    before = dump(host)
    error = refusal(host.call("bandwidth", "ADD", limited(connected, **keys), container))
    assert "has a qdisc at its" in error["msg"]
    after = dump(host)
    if "clsact" in command:
        # The kernel has given the link a queue length for it, which goes with our qdisc.
        after["links"] = before["links"]
    assert differences(before, after) == ""
    before = dump(host)
    if "ingress" not in command:
        host.delete("bandwidth", limited(connected), container)
        assert differences(before, dump(host)) == ""


def test_name_of_the_block_is_taken(
    host: Host, container: Container, connected: dict[str, Any]
) -> None:
    """[W-BW2] Links of others with both names: refused, and all as before."""
    first = host.add("bandwidth", limited(connected, **EGRESS), container)
    own = f"bwp{host_end(connected).removeprefix('veth')}"
    host.delete("bandwidth", limited(first), container)
    for name in (block(first), own):
        host.run("ip", "link", "add", name, "type", "bridge")
    before = dump(host)
    error = refusal(host.call("bandwidth", "ADD", limited(connected, **BOTH), container))
    assert error["msg"] == f"interface {own} exists already"
    assert differences(before, dump(host)) == ""
    host.delete("bandwidth", limited(connected), container)
    assert differences(before, dump(host)) == ""


def test_block_that_is_left_over(
    host: Host, container: Container, connected: dict[str, Any]
) -> None:
    """[W-BW2] [W-G20] The container's namespace went without DEL, and it comes back."""
    result = host.add("bandwidth", limited(connected, **BOTH), container)
    container.delete_netns()
    again = host.container("c1", "cid1")
    second = host.add("bridge", l3(isGateway=True), again)
    renewed = host.add("bandwidth", limited(second, **BOTH), again)
    assert block(renewed) == block(result)
    assert check(host, limited(renewed, **BOTH), again) == ""
    assert len([one for one in host.ip("link") if one["ifname"].startswith("bwp")]) == 1


def test_left_over_of_a_killed_add(
    host: Host, container: Container, connected: dict[str, Any]
) -> None:
    """[W-BW2] A block without a label: DEL without a result removes it, and so does GC."""
    result = host.add("bandwidth", limited(connected, **EGRESS), container)
    name, key = block(result), host.link(block(result))
    assert key is not None
    host.delete("bandwidth", limited(result), container)
    group = 0x45000000 | int(key["ifalias"][:6], 16)
    for one in (limited(), limited(**{"cni.dev/valid-attachments": []})):
        host.run("ip", "link", "add", name, "group", str(group), "type", "ifb")
        if "cni.dev/valid-attachments" in one:
            assert host.call("bandwidth", "GC", one).status == 0
        else:
            host.delete("bandwidth", one, container)
        assert host.link(name) is None


# DEL.


@pytest.mark.parametrize(
    ("netns", "prev"),
    [
        ("there", "none"),
        ("there", "damaged"),
        ("gone", "result"),
        ("gone", "none"),
        ("empty", "result"),
        ("plain", "none"),
    ],
)
def test_delete_whatever_is_left(
    host: Host, container: Container, connected: dict[str, Any], netns: str, prev: str
) -> None:
    """[A.19] [DL-04] [W-BW5] Also with a configuration that ADD would refuse."""
    result = host.add("bandwidth", limited(connected, **BOTH), container)
    config = limited(ingressRate=-1, egressBurst=5, unshapedSubnets="x", runtimeConfig=7)
    if prev != "none":
        config["prevResult"] = result if prev == "result" else {"interfaces": "x"}
    caller = container
    if netns == "gone":
        container.delete_netns()
    elif netns != "there":
        caller = Container(host, "cid1", "" if netns == "empty" else "/etc/hostname")
    for _ in range(2):
        host.delete("bandwidth", config, caller)
    assert not [one for one in host.ip("link") if one["ifname"].startswith("bwp")]
    host.attachments = {key: one for key, one in host.attachments.items() if key[3] == "bridge"}


def test_delete_leaves_others(host: Host, container: Container) -> None:
    """A link of the block's name that is none, or another attachment's."""
    other = host.container("c2", "cid2")
    connected = host.add("bridge", l3(isGateway=True), other)
    kept = host.add("bandwidth", limited(connected, **BOTH), other)
    before = dump(host)
    host.delete("bandwidth", limited(kept), container)
    assert differences(before, dump(host)) == ""
    name = block(kept)
    host.delete("bandwidth", limited(kept), other)
    host.run("ip", "link", "add", name, "type", "bridge")
    host.delete("bandwidth", limited(kept), other)
    assert host.link(name) is not None


# CHECK.

# What changes a parameter, and what CHECK then says.
CHANGES = {
    "qdisc change dev {port} handle 1: root tbf rate 9mbit burst 100000b limit 125000b":
        "rate in bytes/s of veth",
    "qdisc change dev {port} handle 1: root tbf rate 8mbit burst 90000b limit 125000b":
        "burst in ticks of veth",
    "qdisc change dev {block} handle 1: root tbf rate 8mbit burst 100000b limit 9000b":
        "limit in bytes of bwp",
    "qdisc change dev {block} handle 1: root tbf rate 1mbit burst 100000b limit 125000b":
        "rate in bytes/s of bwp",
    "filter add dev {port} parent ffff: prio 9 protocol ip u32 match u32 0 0 flowid 1:1":
        "filters of veth",
}  # fmt: skip
RESTORED = (
    "qdisc change dev {port} handle 1: root tbf rate 8mbit burst 100000b limit 125000b",
    "qdisc change dev {block} handle 1: root tbf rate 8mbit burst 100000b limit 125000b",
    "filter del dev {port} parent ffff: prio 9",
)
REMOVALS = {
    "tc qdisc del dev {port} root": "qdisc at the root of veth",
    "tc qdisc replace dev {port} root handle 5: bfifo": "expected tbf 1:, found bfifo 5:",
    "tc qdisc del dev {block} root": "qdisc at the root of bwp",
    "tc qdisc del dev {port} ingress": "qdisc at the ingress of veth",
    "tc filter del dev {port} parent ffff: prio 1": "filters of veth",
    "ip link set {block} down": "state of bwp",
    "ip link set {block} mtu 1300": "mtu of bwp",
    "ip link del {block}": "of the attachment differs",
}


def test_check_of_parameters(host: Host, container: Container, connected: dict[str, Any]) -> None:
    """[W-BW4] Each parameter of each queue, and a filter too many."""
    result = host.add("bandwidth", limited(connected, **BOTH), container)
    config, named = limited(result, **BOTH), {"port": host_end(result), "block": block(result)}
    for command, text in CHANGES.items():
        host.run("tc", *command.format(**named).split())
        said = check(host, config, container)
        assert text in said, (command, said)
        for repair in RESTORED:
            host.run("tc", *repair.format(**named).split(), check=False)
    assert check(host, config, container) == ""
    for keys, text in (
        ({"ingressRate": RATE + 8}, "rate in bytes/s of veth"),
        ({"egressBurst": BURST + 80}, "limit in bytes of bwp"),
        ({"unshapedSubnets": SUBNETS}, "qdisc at the root of veth"),
    ):
        assert text in check(host, limited(result, **(BOTH | keys)), container)
    other = json.loads(json.dumps(result))
    other["interfaces"][-1]["mac"] = "02:00:00:00:00:77"
    assert "mac of interface bwp" in check(host, limited(other, **BOTH), container)


@pytest.mark.parametrize("command", REMOVALS)
def test_check_of_presence(
    host: Host, container: Container, connected: dict[str, Any], command: str
) -> None:
    """[W-BW4] Each queue, the filter, and the block."""
    result = host.add("bandwidth", limited(connected, **BOTH), container)
    host.run(*command.format(port=host_end(result), block=block(result)).split())
    assert REMOVALS[command] in check(host, limited(result, **BOTH), container)


CLASS = "class change dev {port} classid 1:1 htb "
SORTED = {
    CLASS + "rate 9mbit ceil 8mbit burst 100000b cburst 100000b": "rate in bytes/s of",
    CLASS + "rate 8mbit ceil 9mbit burst 100000b cburst 100000b": "highest rate",
    CLASS + "rate 8mbit ceil 8mbit burst 9000b cburst 100000b": "burst in ticks",
    CLASS + "rate 8mbit ceil 8mbit burst 100000b cburst 9000b": "burst of the highest",
    "qdisc change dev {port} handle 2: parent 1:1 bfifo limit 9000": "limit in bytes of",
}
# Nothing is put right after these: CHECK meets the later one first.
MISSING = {
    "filter del dev {port} parent ffff: prio 1": "at ffff:",
    "filter del dev {port} parent 1: prio 2": "at 1:",
    "qdisc del dev {port} handle 2: parent 1:1": "qdisc at the class 1:1 of",
}


def test_check_with_subnets(host: Host, container: Container, connected: dict[str, Any]) -> None:
    """[W-BW4] The same of the class, its queue, and the filters."""
    keys = BOTH | {"unshapedSubnets": SUBNETS}
    result = host.add("bandwidth", limited(connected, **keys), container)
    config, port = limited(result, **keys), host_end(result)
    for command, text in SORTED.items():
        host.run("tc", *command.format(port=port).split())
        said = check(host, config, container)
        assert text in said, (command, said)
        same = CLASS + "rate 8mbit ceil 8mbit burst 100000b cburst 100000b quantum 65536"
        host.run("tc", *same.format(port=port).split())
    queue = "qdisc change dev {port} handle 2: parent 1:1 bfifo limit 173728"
    host.run("tc", *queue.format(port=port).split())
    assert check(host, config, container) == ""
    for other, text in (
        ({"unshapedSubnets": SUBNETS[:2]}, "filters of"),
        ({"unshapedSubnets": [], "shapedSubnets": SUBNETS}, "default class of"),
        ({"unshapedSubnets": []}, "qdisc at the root of"),
    ):
        assert text in check(host, limited(result, **(keys | other)), container), other
    for command, text in MISSING.items():
        host.run("tc", *command.format(port=port).split())
        said = check(host, config, container)
        assert text in said, (command, said)


# What cannot be limited.


def interfaces(*entries: tuple[str, str]) -> dict[str, Any]:
    listed = [{"name": name, **({"sandbox": where} if where else {})} for name, where in entries]
    return {"cniVersion": "1.1.0", "interfaces": listed}


def test_what_cannot_be_limited(
    host: Host, container: Container, connected: dict[str, Any]
) -> None:
    """[6.2] [W-BW6] Errors that say what is missing; nothing changes."""
    before = dump(host)
    port, inside = host_end(connected), container.netns
    container.run("ip", "link", "add", "mv0", "link", "eth0", "type", "macvlan")
    for previous, ifname, msg, details in (
        (interfaces(), "eth0", "no interfaces provided", "prevResult has none"),
        (connected, "eth7", "container interface eth7 has no veth peer", "it does not exist"),
        (connected, "lo", "container interface lo has no veth peer", "its kind is none"),
        (connected, "mv0", "container interface mv0 has no veth peer", "its kind is macvlan"),
        (
            interfaces(("cni0", ""), ("eth0", inside)),
            "eth0",
            "no veth peer of container interface found in host ns",
            f"prevResult does not list {port}",
        ),
        (
            interfaces((port, inside), ("eth0", inside)),
            "eth0",
            "no veth peer of container interface found in host ns",
            f"prevResult does not list {port}",
        ),
    ):
        config = limited(previous, **BOTH)
        for verb in ("ADD", "CHECK"):
            error = refusal(host.call("bandwidth", verb, config, container, ifname))
            assert error["msg"] == msg
            assert details in error["details"]
        assert differences(before, dump(host)) == ""


def test_host_end_in_another_namespace(
    host: Host, container: Container, connected: dict[str, Any]
) -> None:
    """[6.2] The index that the container's end tells is another link's here, or none's."""
    port = host_end(connected)
    host.container("elsewhere")
    host.run("ip", "link", "set", port, "netns", "elsewhere")
    error = refusal(host.call("bandwidth", "ADD", limited(connected, **BOTH), container))
    assert "is not in host ns" in error["msg"]
    host.run("ip", "-n", "elsewhere", "link", "del", port)


def test_without_a_namespace(host: Host, connected: dict[str, Any]) -> None:
    config = limited(connected, **BOTH)
    missing = Container(host, "cid1", "/run/netns/missing")
    for verb in ("ADD", "CHECK"):
        assert refusal(host.call("bandwidth", verb, config, missing))["code"] == 4
    assert leaks(host) != []  # The bridge's pair alone.
    assert host.ip("link", "show", "type", "ifb") == []


@pytest.mark.parametrize(
    ("keys", "msg"),
    [
        ({"ingressRate": 8}, "if rate is set, burst must also be set"),
        ({"ingressRate": 5, "ingressBurst": 800}, "ingressRate cannot be less than 8 bits"),
        ({**BOTH, "unshapedSubnets": ["x"]}, "invalid CIDR address: x"),
        ({**BOTH, "egressBurst": 2**35}, "burst cannot be more than 4GB"),
    ],
)
def test_bad_input(
    host: Host, container: Container, connected: dict[str, Any], keys: dict[str, Any], msg: str
) -> None:
    """[W-BW5] ADD and CHECK refuse before anything is done, STATUS with code 50; DEL does not."""
    before = dump(host)
    config = limited(connected, **keys)
    for verb, code in (("ADD", 7), ("CHECK", 7), ("STATUS", 50)):
        error = refusal(host.call("bandwidth", verb, config, container))
        if "CIDR" not in msg:
            assert error["code"] == code
        assert msg in error["msg"]
    host.delete("bandwidth", config, container)
    assert host.call("bandwidth", "GC", config | {"cni.dev/attachments": []}).status == 0
    assert differences(before, dump(host)) == ""


def test_result_that_cannot_be_written(
    host: Host, container: Container, connected: dict[str, Any]
) -> None:
    """[W-G8] [W-BW2] ADD undoes itself, with what it has put on a link that stays."""
    before = dump(host)
    for subnets in ([], SUBNETS):
        stdin = json.dumps(limited(connected, **BOTH, unshapedSubnets=subnets))
        command = ("sh", "-c", 'exec "$0" > /dev/full', f"{BIN}/bandwidth")
        env = container.environ("ADD") | {"CNI_PY_SOCKET": ""}
        outcome = host.run(*command, stdin=stdin, env=env, check=False)
        assert "error writing the result to stdout" in outcome.stderr
        assert differences(before, dump(host)) == ""


# STATUS and GC.


def test_status(host: Host) -> None:
    """[W-G2] Green where the kernel has what it takes, and nothing is made by asking."""
    before = dump(host)
    for keys in ({}, BOTH, BOTH | {"shapedSubnets": SUBNETS}):
        outcome = host.call("bandwidth", "STATUS", limited(**keys))
        assert (outcome.status, outcome.stdout) == (0, ""), outcome
    assert differences(before, dump(host)) == ""


def test_status_in_a_user_namespace(host: Host) -> None:
    """Where actions cannot be asked for by themselves, as in podman's rootless networks."""
    alone = ("unshare", "--user", "--map-root-user", "--net")
    environ = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(BIN), "CNI_PY_SOCKET": ""}
    outcome = host.run(
        *alone, f"{BIN}/bandwidth", stdin=json.dumps(limited()), env=environ, check=False
    )
    assert (outcome.status, outcome.stdout) == (0, ""), outcome


def test_gc(host: Host) -> None:
    """[W-G1] The dead of the network go; the living and other networks' stay."""
    results = {}
    for name, network in (("alive", "net1"), ("dead", "net1"), ("other", "net2")):
        container = host.container(name)
        connected = host.add("bridge", l2(name=network), container)
        config = limited(connected, name=network, **EGRESS)
        results[name] = host.add("bandwidth", config, container)
    config = limited()
    before = dump(host)
    assert host.call("bandwidth", "GC", config).status == 0
    assert differences(before, dump(host)) == ""
    alive = [{"containerID": "id-alive", "ifname": "eth0"}]
    outcome = host.call("bandwidth", "GC", config | {"cni.dev/valid-attachments": alive})
    assert (outcome.status, outcome.stdout) == (0, "")
    left = {one["ifname"] for one in host.ip("link", "show", "type", "ifb")}
    assert left == {block(results["alive"]), block(results["other"])}


MISSING_KIND = """
from cni_py.kernel import tc
from cni_py.kernel.netlink import Netlink
with Netlink() as netlink:
    print(tc.missing(netlink, ("tbf", "ingress", "no-such")), tc.missing(netlink, ("tbf",)), "end")
"""


def test_what_the_kernel_lacks(host: Host) -> None:
    """[W-G2] By its name, and without a trace."""
    before = dump(host)
    python = str(ROOT / ".venv" / "bin" / "python")
    assert host.run(python, "-I", "-c", MISSING_KIND).stdout == "sch_no-such  end\n"
    assert differences(before, dump(host)) == ""
