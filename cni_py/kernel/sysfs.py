"""Devices as /sys shows them: which interface belongs to which piece of hardware."""

from __future__ import annotations

import os

from .errors import kernel_error

DEVICES = "/sys/devices/"
_PCI = "/sys/bus/pci/devices"
_AUXILIARY = "/sys/bus/auxiliary/devices"
# With one of these a device has no interface: a program in user space drives it.
_USER_SPACE_DRIVERS = frozenset({"vfio-pci", "uio_pci_generic", "igb_uio"})


def pci_device(address: str) -> str | None:
    """The folder of a PCI device, None if there is none."""
    return _existing(f"{_PCI}/{address}")


def auxiliary_device(name: str) -> str | None:
    """The folder of a device on the auxiliary bus, such as a subfunction; None if there is none."""
    return _existing(f"{_AUXILIARY}/{name}")


def is_driven_from_user_space(folder: str) -> bool:
    """Whether the device's driver is one of those that DPDK uses; one without a driver has none."""
    try:
        driver = os.readlink(f"{folder}/driver")
    except OSError:
        return False
    return os.path.basename(driver) in _USER_SPACE_DRIVERS


def interfaces(folder: str) -> list[str]:
    """The names of a device's interfaces in the namespace that /sys shows, sorted.

    The folder is a device's, with its interfaces under `net` or, of a virtio device, a level lower;
    or an interface's own. Raises KernelError where it cannot be read.
    """
    if os.path.exists(f"{folder}/ifindex"):
        return [os.path.basename(os.path.realpath(folder))]
    found = _listed(folder, folder)
    if "net" in found:
        return _listed(f"{folder}/net", folder)
    virtio = [one for one in found if one.startswith("virtio")]
    below = [_listed(f"{folder}/{one}/net", folder) for one in virtio]
    return [name for names in below for name in names]


def _existing(path: str) -> str | None:
    return path if os.path.isdir(path) else None


def _listed(path: str, device: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        if path != device:
            return []
        raise kernel_error(f"read directory {path}", FileNotFoundError(2, "")) from None
    except OSError as error:
        raise kernel_error(f"read directory {path}", error) from error
