"""host-device's configuration, and the device that it means (plugins.md 3.6)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.kernel import links, sysfs
from cni_py.spec.config import IpamType, PluginConfig
from cni_py.spec.errors import CniError, Code, refusals
from cni_py.spec.names import validate_device_name, validate_new_ifname

from . import interface
from .hardware_address import parse_mac

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Netlink
    from cni_py.spec.call import Call


class _DeviceId(msgspec.Struct, frozen=True, kw_only=True):
    device_id: str = msgspec.field(default="", name="deviceID")
    """The capability `deviceID`: a PCI address or a name on the auxiliary bus; replaces
    `pciBusID`.
    """


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL needs to know; `device` helps where the reference has moved it."""

    device: str = ""
    """The device's name on the host."""
    ipam: IpamType = IpamType()
    """Who gives out addresses: `ipam.type` names the IPAM plugin."""


class Config(DelConfig, frozen=True, kw_only=True):
    """host-device's configuration: the first of the four keys that is set names the device.

    `runtimeConfig.deviceID` replaces `pciBusID`.
    """

    hwaddr: str = ""
    """The device's hardware address."""
    kernelpath: str = ""
    """The hardware's folder below `/sys/devices/`, or the interface's own there."""
    pci_bus_id: str = msgspec.field(default="", name="pciBusID")
    """The device's PCI address, as `0000:00:1f.6`."""
    runtime_config: _DeviceId = _DeviceId()
    """What the capabilities bring."""


class Selection(NamedTuple):
    """What names the device: one is set. `folder` is the hardware's in /sys, from the key `key`."""

    name: str = ""
    mac: str = ""
    folder: str = ""
    key: str = ""

    @property
    def is_dpdk(self) -> bool:
        """Whether a program in user space drives the device, so that there is no interface."""
        return bool(self.folder) and sysfs.is_driven_from_user_space(self.folder)


def selection_of(call: Call[Config]) -> Selection:
    """Check the configuration, and choose among its keys. Raises CniError 7."""
    config = call.config
    if call.verb == "ADD":
        validate_new_ifname(call.ifname)
    interface.require_reportable(call)
    if config.device:
        validate_device_name(config.device, "device")
        return Selection(name=config.device, key=f'device "{config.device}"')
    if config.hwaddr:
        mac = parse_mac(config.hwaddr, "hwaddr")
        return Selection(mac=mac, key=f'hwaddr "{config.hwaddr}"')
    if config.kernelpath:
        return _by_path(config.kernelpath)
    if config.runtime_config.device_id:
        return _by_id(config.runtime_config.device_id)
    if config.pci_bus_id:
        return _by_address(config.pci_bus_id)
    raise _unnamed()


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host, as far as the runtime brings nothing else."""
    config = call.config
    yield from refusals("ipam", interface.require_reportable, call)
    if config.device:
        yield from refusals("device", validate_device_name, config.device, "device")
    elif config.hwaddr:
        yield from refusals("hwaddr", parse_mac, config.hwaddr, "hwaddr")
    elif config.kernelpath:
        yield from refusals("kernelpath", _by_path, config.kernelpath)
    elif config.pci_bus_id:
        yield from refusals("pciBusID", _require_name, config.pci_bus_id, "pciBusID")
    elif not config.capabilities.get("deviceID", False):
        yield _unnamed()


def _unnamed() -> CniError:
    msg = 'specify either "device", "hwaddr", "kernelpath" or "pciBusID"'
    return CniError(Code.INVALID_CONFIG, msg, "or the runtime passes runtimeConfig.deviceID")


def find(host: Netlink, selection: Selection) -> Link | None:
    """The device on the host, None if it is not there. Raises KernelError."""
    if selection.name:
        return links.get(host, selection.name)
    if selection.mac:
        same = [one for one in links.dump(host) if one.mac == selection.mac]
        # A bond and its members, a VLAN and its parent have one address in common.
        return min(same, key=lambda one: one.permanent_mac != selection.mac, default=None)
    names = sysfs.interfaces(selection.folder)
    return links.get(host, names[0]) if names else None


def not_found(selection: Selection, details: str) -> CniError:
    """The refusal where the host has no such device."""
    msg = f"failed to find host device: {selection.key}"
    return CniError(Code.INTERNAL, msg, details)


def _by_path(path: str) -> Selection:
    key = f'kernelpath "{path}"'
    folder = os.path.normpath(path)
    if not folder.startswith(sysfs.DEVICES):
        msg = f'kernel device path "{path}" must be absolute and begin with {sysfs.DEVICES}'
        raise CniError(Code.INVALID_CONFIG, msg, "in the key kernelpath")
    return Selection(folder=folder, key=key)


def _by_id(device_id: str) -> Selection:
    key = f'runtimeConfig.deviceID "{device_id}"'
    _require_name(device_id, "runtimeConfig.deviceID")
    folder = sysfs.pci_device(device_id) or sysfs.auxiliary_device(device_id)
    if folder is None:
        msg = f"runtime config DeviceID {device_id} not found or unsupported"
        raise CniError(Code.INTERNAL, msg, "neither the pci nor the auxiliary bus has it")
    return Selection(folder=folder, key=key)


def _by_address(address: str) -> Selection:
    _require_name(address, "pciBusID")
    key = f'pciBusID "{address}"'
    folder = sysfs.pci_device(address)
    if folder is None:
        raise not_found(Selection(key=key), "there is no such PCI device")
    return Selection(folder=folder, key=key)


def _require_name(text: str, key: str) -> None:
    if "/" in text or text in (".", "..") or "\0" in text:
        msg = f'{key} "{text}" is not a device on a bus'
        raise CniError(Code.INVALID_CONFIG, msg, "it looks like 0000:00:1f.6")
