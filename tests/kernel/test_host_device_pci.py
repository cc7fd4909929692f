"""host-device with PCI cards, which outlive their namespace (`make test-vm`)."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import V4, V6, host_local
from fixtures.host import Container, Host, refusal
from fixtures.leaks import leaks
from fixtures.reference import reference

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.vm

# run-in-vm has put them in, joined to each other.
MACS = {"nic0": "52:54:00:c0:0a:01", "far0": "52:54:00:c0:0a:02"}
RECORDS = "/var/lib/cni/cni-py/host-device"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def machines_name(mac: str) -> str:
    """The name of a card in the machine's first namespace, once it is there."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        shown = subprocess.run(["ip", "-j", "link"], check=True, capture_output=True).stdout
        for one in json.loads(shown):
            if one["address"] == mac:
                name: str = one["ifname"]
                return name
    raise AssertionError(f"no card {mac}")


@pytest.fixture
def nic(host: Host) -> Host:
    """A host with the cards nic0, up with addresses, and far0."""
    subprocess.run(["modprobe", "virtio_net"], check=True)
    for name, mac in MACS.items():
        bring(host, mac, name)
    host.run("ip", "link", "set", "nic0", "mtu", "1400", "alias", "uplink", "up")
    host.run("ip", "addr", "add", "198.51.100.7/24", "dev", "nic0")
    host.run("ip", "addr", "add", "fd00:9::7/64", "dev", "nic0", "nodad")
    host.run("ip", "addr", "add", "10.1.2.1/24", "dev", "far0")
    host.run("ip", "link", "set", "far0", "up")
    return host


def bring(host: Host, mac: str, name: str = "") -> str:
    """Move a card from the machine to the host; the kernel returns it to the machine."""
    there = machines_name(mac)
    ip("link", "set", there, "netns", str(host.holder.pid), *(["name", name] if name else []))
    return name or there


def address_of(host: Host, name: str = "nic0") -> str:
    """Its PCI address."""
    path = host.run("readlink", "-f", f"/sys/class/net/{name}/device").stdout.strip()
    # The card, and below it what is virtio of it.
    return Path(path).parent.name


def l3(*ranges: Any, **keys: Any) -> dict[str, Any]:
    base = {"cniVersion": "1.1.0", "name": "net1", "type": "host-device", "device": "nic0"}
    config = base | {"ipam": host_local(*ranges)} | keys
    return {key: value for key, value in config.items() if value is not None}


def state(host: Host) -> dict[str, Any]:
    (shown,) = host.ip("addr", "show", "dev", "nic0")
    have = [one for one in shown["addr_info"] if one["scope"] != "link"]
    keys = ("ifname", "address", "mtu", "ifalias")
    return {key: shown.get(key) for key in keys} | {
        "up": "UP" in shown["flags"],
        "addresses": sorted(f"{one['local']}/{one['prefixlen']}" for one in have),
    }


@pytest.mark.parametrize("key", ["pciBusID", "deviceID", "kernelpath", "hwaddr"])
def test_by_each_key(nic: Host, key: str) -> None:
    """Moved, usable, and given back as it was."""
    address = address_of(nic)
    before = state(nic)
    values: dict[str, dict[str, Any]] = {
        "pciBusID": {"pciBusID": address},
        "deviceID": {"pciBusID": "0000:ff:1f.7", "runtimeConfig": {"deviceID": address}},
        "kernelpath": {"kernelpath": f"/sys/devices/pci0000:00/{address}"},
        "hwaddr": {"hwaddr": MACS["nic0"]},
    }
    config = l3(V4, V6, device=None, **values[key])
    assert nic.call("host-device", "STATUS", config).status == 0
    container = nic.container("c1")
    result = nic.add("host-device", config, container)
    assert result["interfaces"][0]["mac"] == MACS["nic0"]
    assert container.link()["ifalias"] == "nic0"
    assert container.reaches("10.1.2.1")
    checked = config | {"prevResult": result}
    assert nic.call("host-device", "CHECK", checked, container).status == 0
    assert refusal(nic.call("host-device", "STATUS", config))["code"] == 50
    looks = ("name", "other", "address", "02:00:00:00:00:99", "mtu", "1300", "alias", "x")
    container.run("ip", "link", "set", "eth0", "down")
    container.run("ip", "link", "set", "eth0", *looks)
    nic.delete("host-device", config, container)
    assert state(nic) == before
    nic.delete("host-device", config, container)
    assert leaks(nic) == []


@pytest.mark.parametrize("how", ["DEL", "DEL without CNI_NETNS", "GC", "ADD"])
def test_kernel_has_returned_the_card(nic: Host, how: str) -> None:
    """[W-HD1, W-HD4] The namespace ended without DEL: the card gets its name back, and the rest."""
    before = state(nic)
    container = nic.container("c1")
    nic.add("host-device", l3(), container, "net7")
    container.delete_netns()
    # To the machine's first namespace, under the container's name: that is where hosts live.
    assert machines_name(MACS["nic0"]) == "net7"
    if how != "ADD":
        # As long as it is nowhere to be found, the record waits for it.
        nic.delete("host-device", l3(), container, "net7")
        assert nic.allocated("net1") == {}
        assert len(nic.files(RECORDS)) == 1
    assert bring(nic, MACS["nic0"]) == "net7"
    if how == "GC":
        config = l3() | {"cni.dev/valid-attachments": []}
        assert nic.call("host-device", "GC", config).status == 0
    elif how == "ADD":
        other = nic.container("c2")
        nic.add("host-device", l3(), other)
        assert other.link()["ifalias"] == "nic0"
        nic.delete("host-device", l3(), other)
        nic.delete("host-device", l3(), container, "net7")
    else:
        env = {} if how == "DEL" else {"CNI_NETNS": ""}
        nic.delete("host-device", l3(), container, "net7", env=env)
    assert state(nic) == before
    assert nic.link("net7") is None
    assert leaks(nic) == []


def test_another_attachment_has_the_card(nic: Host) -> None:
    """The record that waited is void once the card has gone to somebody else."""
    first, second = nic.container("c1"), nic.container("c2")
    nic.add("host-device", l3(), first)
    first.delete_netns()
    bring(nic, MACS["nic0"])
    nic.add("host-device", l3(), second)
    nic.delete("host-device", l3(), first)
    assert second.addresses() == ["10.1.2.3/24"]
    assert second.reaches("10.1.2.1")
    assert len(nic.files(RECORDS)) == 1


def test_failed_add(nic: Host) -> None:
    """[W-HD3]"""
    before = state(nic)
    pool = host_local(V4, routes=[{"dst": "192.0.2.0/24", "gw": "10.9.9.9"}])
    refusal(nic.call("host-device", "ADD", l3(ipam=pool), nic.container("c1")))
    assert state(nic) == before
    assert leaks(nic) == []


def test_of_the_reference(nic: Host) -> None:
    """Each gives back what the other has moved."""
    theirs, config = reference(nic, "host-device"), l3(device=None, pciBusID=address_of(nic))
    for made_by, other in ((nic, theirs), (theirs, nic)):
        container = nic.container("c1")
        outcome = made_by.call("host-device", "ADD", config, container)
        assert outcome.status == 0, outcome
        checked = config | {"prevResult": outcome.json}
        assert other.call("host-device", "CHECK", checked, container).status == 0
        other.delete("host-device", config, container)
        assert nic.link("nic0") is not None
        nic.delete("host-device", config, container)
        container.delete_netns()
    assert leaks(nic) == []


@pytest.fixture
def dpdk(nic: Host) -> Iterator[str]:
    """The address of a card that a program in user space would drive."""
    address = address_of(nic)
    bus = Path("/sys/bus/pci")
    subprocess.run(["modprobe", "uio_pci_generic"], check=True)
    device = bus / "devices" / address
    try:
        _bind(device, "uio_pci_generic")
        yield address
    finally:
        _bind(device, "virtio-pci")
        machines_name(MACS["nic0"])


def _bind(device: Path, driver: str) -> None:
    (device / "driver" / "unbind").write_text(device.name)
    (device / "driver_override").write_text(driver)
    (device.parents[1] / "drivers_probe").write_text(device.name)
    assert (device / "driver").resolve().name == driver


def test_dpdk(nic: Host, dpdk: str) -> None:
    """[W-HD5] Nothing is moved; addresses are for the program that drives the card."""
    container: Container = nic.container("c1")
    config = l3(device=None, pciBusID=dpdk)
    assert nic.call("host-device", "STATUS", config).status == 0
    result = nic.add("host-device", config, container)
    assert result["interfaces"] == [{"name": "eth0", "sandbox": container.netns}]
    assert [one["address"] for one in result["ips"]] == ["10.1.2.2/24"]
    assert [one["ifname"] for one in container.ip("link")] == ["lo"]
    checked = config | {"prevResult": result}
    assert nic.call("host-device", "CHECK", checked, container).status == 0
    nic.delete("host-device", config, container)
    assert leaks(nic) == []
    theirs = reference(nic, "host-device")
    assert theirs.call("host-device", "ADD", config, container).json["interfaces"] == [
        {"name": "eth0", "sandbox": container.netns}
    ]
    nic.delete("host-device", config, container)
    assert leaks(nic) == []


def test_del_needs_no_driver(nic: Host) -> None:
    """[W-HD5] A card whose driver was taken away meanwhile: the address is released."""
    address = address_of(nic)
    config = l3(device=None, pciBusID=address)
    container = nic.container("c1")
    nic.add("host-device", config, container)
    device = Path("/sys/bus/pci/devices") / address
    (device / "driver" / "unbind").write_text(address)
    try:
        nic.delete("host-device", config, container)
        assert nic.allocated("net1") == {}
        error = refusal(nic.call("host-device", "ADD", config, container))
        assert error["msg"] == f'failed to find host device: pciBusID "{address}"'
    finally:
        Path("/sys/bus/pci/drivers_probe").write_text(address)
        machines_name(MACS["nic0"])
    nic.run("rm", "-r", RECORDS)
