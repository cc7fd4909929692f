"""bridge with VLANs, on a kernel that filters them (`make test-vm`)."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.configs import l2, l3
from fixtures.host import Host, refusal

pytestmark = pytest.mark.vm


def vlans(host: Host, port: str) -> dict[int, set[str]]:
    """The VLANs of a port, with their flags."""
    shown = {one["ifname"]: one["vlans"] for one in host.bridge("vlan", "show")}
    found: dict[int, set[str]] = {}
    for one in shown.get(port, []):
        for vid in range(one["vlan"], one.get("vlanEnd", one["vlan"]) + 1):
            found[vid] = set(one.get("flags", []))
    return found


def port_of(host: Host, bridge: str = "cni0") -> str:
    (port,) = [one for one in host.ports(bridge) if "ifalias" in one]
    name: str = port["ifname"]
    return name


OWN = {"PVID", "Egress Untagged"}


def test_access_port_and_trunk(host: Host) -> None:
    """[A.3, W-BR7]"""
    trunk = [{"id": 101}, {"minID": 200, "maxID": 202}, {"minID": 201, "maxID": 203}]
    container = host.container("c1")
    config = l2(vlan=100, vlanTrunk=trunk)
    result = host.add("bridge", config, container)
    bridge = host.link("cni0")
    assert bridge is not None
    assert bridge["linkinfo"]["info_data"]["vlan_filtering"] == 1
    tagged: set[str] = set()
    assert vlans(host, port_of(host)) == {
        100: OWN,
        101: tagged,
        200: tagged,
        201: tagged,
        202: tagged,
        203: tagged,
    }
    checked = config | {"prevResult": result}
    assert host.call("bridge", "CHECK", checked, container).status == 0
    host.run("bridge", "vlan", "del", "dev", port_of(host), "vid", "101")
    error = refusal(host.call("bridge", "CHECK", checked, container))
    assert error["msg"].startswith("VLANs of host end")
    assert "101" in error["details"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"vlan": 100}, {100: OWN}),
        ({"vlan": 100, "preserveDefaultVlan": True}, {1: {"Egress Untagged"}, 100: OWN}),
        ({"vlanTrunk": [{"id": 7}]}, {1: OWN, 7: set()}),
        ({"vlanTrunk": []}, {1: OWN}),
    ],
)
def test_default_vlan(host: Host, keys: dict[str, Any], expected: dict[int, set[str]]) -> None:
    host.add("bridge", l2(**keys), host.container("c1"))
    assert vlans(host, port_of(host)) == expected


def test_whole_range_in_one_request(host: Host) -> None:
    """[W-BR7] 4,094 VLANs."""
    host.add("bridge", l2(vlanTrunk=[{"minID": 1, "maxID": 4094}]), host.container("c1"))
    assert len(vlans(host, port_of(host))) == 4094


def test_vlans_separate(host: Host) -> None:
    first, second, third = (host.container(name) for name in ("c1", "c2", "c3"))
    host.add("bridge", l3(vlan=100), first)
    host.add("bridge", l3(vlan=100), second)
    host.add("bridge", l3(vlan=200), third)
    assert first.reaches("10.1.2.3")
    assert not first.reaches("10.1.2.4")


def test_gateway_in_a_vlan(host: Host) -> None:
    """[A.4] The gateway's address is on an interface of the VLAN, and reachable."""
    container = host.container("c1")
    config = l3(vlan=100, isGateway=True)
    result = host.add("bridge", config, container)
    gateway = host.link("cni0.100")
    assert gateway is not None
    assert result["interfaces"][3] == {"name": "cni0.100", "mac": gateway["address"]}
    assert container.reaches("10.1.2.1")
    inet = host.ip("-4", "addr", "show", "cni0")
    assert inet == [] or "addr_info" not in inet[0] or inet[0]["addr_info"] == []
    checked = config | {"prevResult": result}
    assert host.call("bridge", "CHECK", checked, container).status == 0
    # A second container shares it.
    second = host.container("c2")
    host.add("bridge", config, second)
    assert second.reaches("10.1.2.1")
    assert len(host.ports()) == 3


def test_filtering_is_turned_on(host: Host) -> None:
    """[W-BR6] A bridge that another network has made gets what this one needs."""
    plain, tagged = host.container("c1"), host.container("c2")
    host.add("bridge", l3(), plain)
    host.add("bridge", l3(vlan=100), tagged)
    bridge = host.link("cni0")
    assert bridge is not None
    assert bridge["linkinfo"]["info_data"]["vlan_filtering"] == 1
    assert not plain.reaches("10.1.2.3")


def test_name_of_the_gateways_interface_is_too_long(host: Host) -> None:
    """[W-BR12]"""
    config = l3(bridge="a-longer-name", vlan=1000, isGateway=True)
    error = refusal(host.call("bridge", "ADD", config, host.container("c1")))
    assert error["code"] == 7
    assert "a-longer-name.1000" in error["details"]
    assert host.link("a-longer-name") is None
