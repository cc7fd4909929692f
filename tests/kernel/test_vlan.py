"""vlan: the VLAN's number, and a parent that each VLAN has once (`make test-vm`)."""

from __future__ import annotations

import pytest

from fixtures.dump import differences, dump
from fixtures.host import Host, refusal
from fixtures.parents import VERSION, child, inside, parent_of, reference_of, uplink

pytestmark = pytest.mark.vm

VLAN = "vlan"


@pytest.mark.parametrize("vlan_id", [None, 0, 1, 4094])
def test_number(host: Host, vlan_id: int | None) -> None:
    """[W-VL3] 0 and absent are the tag of no VLAN, which carries a priority alone."""
    neighbour = uplink(host, VLAN)
    number = vlan_id or 0
    neighbour.run("ip", "link", "del", "lan0.100")
    neighbour.run(
        "ip", "link", "add", "link", "lan0", "name", "v", "type", "vlan", "id", str(number)
    )
    neighbour.run("ip", "link", "set", "v", "up")
    neighbour.run("ip", "addr", "add", "10.1.2.1/24", "dev", "v")
    container = host.container("c1")
    config = child(VLAN)
    del config["vlanId"]
    if vlan_id is not None:
        config["vlanId"] = vlan_id
    checked = config | {"prevResult": host.add(VLAN, config, container)}
    data = container.link()["linkinfo"]["info_data"]
    assert (data["protocol"], data["id"]) == ("802.1Q", number)
    assert container.reaches("10.1.2.1")
    assert host.call(VLAN, "CHECK", checked, container).status == 0
    error = refusal(host.call(VLAN, "CHECK", checked | {"vlanId": 7}, container))
    assert error["msg"] == "vlanId of interface eth0 differs"
    assert error["details"] == f"expected 7, found {number}"


@pytest.mark.parametrize("vlan_id", [-1, 4095, 2**31])
def test_number_out_of_range(host: Host, vlan_id: int) -> None:
    uplink(host, VLAN)
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call(VLAN, "ADD", child(VLAN, vlanId=vlan_id), container))
    assert (error["code"], error["details"]) == (7, "in the key vlanId")
    assert error["msg"] == f"invalid VLAN ID {vlan_id} (must be between 0 and 4094)"
    error = refusal(host.call(VLAN, "STATUS", child(VLAN, vlanId=vlan_id)))
    assert error["code"] == 50
    assert differences(before, dump(host)) == ""


@pytest.mark.parametrize("master", [None, ""])
def test_parent_is_required(host: Host, master: str | None) -> None:
    """[3.5] DEL does without [W-VL2]."""
    uplink(host, VLAN)
    container = host.container("c1")
    msg = '"master" field is required. It specifies the host interface name to create the VLAN for'
    error = refusal(host.call(VLAN, "ADD", child(VLAN, master=master), container))
    assert (error["code"], error["msg"]) == (7, msg)
    host.add(VLAN, child(VLAN), container)
    host.delete(VLAN, child(VLAN, master=master), container)
    assert inside(container) == []


def test_parent_has_the_vlan_already(host: Host) -> None:
    """Refused with the reason, wherever the other one is; the other one is not touched."""
    uplink(host, VLAN)
    first, second = host.container("c1"), host.container("c2")
    host.add(VLAN, child(VLAN), first)
    error = refusal(host.call(VLAN, "ADD", child(VLAN), second))
    assert error["msg"] == "create vlan eth0 on up0: File exists"
    assert "a parent has each VLAN once" in error["details"]
    assert inside(second) == []
    assert list(host.allocated("net1")) == ["10.1.2.2"]
    assert first.reaches("10.1.2.1")
    # Other VLANs are others'.
    host.add(VLAN, child(VLAN, vlanId=101), second)
    assert parent_of(host, second) == "up0"


def test_vlan_of_a_vlan(host: Host) -> None:
    """The parent is itself a VLAN, of the host."""
    neighbour = uplink(host, VLAN)
    neighbour.run("ip", "link", "add", "link", "lan0.100", "name", "q", "type", "vlan", "id", "5")
    neighbour.run("ip", "link", "set", "q", "up")
    neighbour.run("ip", "addr", "add", "10.1.7.1/24", "dev", "q")
    host.run("ip", "link", "add", "link", "up0", "name", "up0.100", "type", "vlan", "id", "100")
    host.run("ip", "link", "set", "up0.100", "up")
    container = host.container("c1")
    pool = {"type": "static", "addresses": [{"address": "10.1.7.2/24"}]}
    config = child(VLAN, master="up0.100", vlanId=5, ipam=pool)
    checked = config | {"prevResult": host.add(VLAN, config, container)}
    assert parent_of(host, container) == "up0.100"
    assert container.reaches("10.1.7.1")
    assert host.call(VLAN, "CHECK", checked, container).status == 0


def test_parent_is_down(host: Host) -> None:
    """The kernel sets no VLAN up on it: said before anything is done."""
    uplink(host, VLAN)
    host.run("ip", "link", "set", "up0", "down")
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call(VLAN, "ADD", child(VLAN), container))
    assert error["msg"] == "master up0 is down"
    error = refusal(host.call(VLAN, "STATUS", child(VLAN)))
    assert (error["code"], error["msg"]) == (50, "master up0 is down")
    assert differences(before, dump(host)) == ""


def test_both_checks_find_another_number(host: Host) -> None:
    """[W-VL3]"""
    uplink(host, VLAN)
    config = child(VLAN, cniVersion=VERSION)
    container = host.container("c1")
    result = host.add(VLAN, config, container)
    checked = config | {"prevResult": result, "vlanId": 7}
    error = refusal(host.call(VLAN, "CHECK", checked, container))
    assert error["msg"] == "vlanId of interface eth0 differs"
    refusal(reference_of(host).call(VLAN, "CHECK", checked, container))
