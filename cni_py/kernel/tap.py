"""TAP devices: created through /dev/net/tun, looked at through rtnetlink.

rtnetlink cannot create them: the kernel answers EOPNOTSUPP (tun_validate in drivers/net/tun.c).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from . import processes
from .errors import KernelError, kernel_error
from .inheriting import inheriting
from .links import RTM_GETLINK
from .netlink import Netlink, Request, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE = "/dev/net/tun"
KIND = "tun"
# What the kernel takes: 65535 less an Ethernet header.
MIN_MTU, MAX_MTU = 68, 65521

# linux/if_tun.h
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_TUNSETGROUP, _TUNSETCARRIER = 0x400454CE, 0x400454E2
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x0100, 0x1000, 0x4000
_IFF_TUN_EXCL = 0x8000
_IFREQ = struct.Struct("=16sH22x")

# linux/if_link.h
_IFLA_IFNAME, _IFLA_LINKINFO, _INFO_DATA = 3, 18, 2
_TUN_OWNER, _TUN_GROUP, _TUN_TYPE, _TUN_MULTI_QUEUE = 1, 2, 3, 7
_NLMSG_BYTES, _INFO_BYTES = 16, 16

_SELINUX = "/sys/fs/selinux/enforce"
_EXEC_LABEL = "/proc/thread-self/attr/exec"
_MOST_BYTES = 4096
_CHILD_SECONDS = 30.0

# Carries out the given ioctls on a descriptor, and prints the number of the first that failed and
# its errno.
_CARRY_OUT = """
import fcntl, sys
step = 0
try:
    for step, text in enumerate(sys.argv[2:], 1):
        request, argument = text.split("=")
        argument = bytes.fromhex(argument[1:]) if argument[0] == "x" else int(argument)
        fcntl.ioctl(int(sys.argv[1]), int(request), argument)
except OSError as error:
    print(step, error.errno)
"""


class Wanted(NamedTuple):
    """A device to create; owner and group may open it without CAP_NET_ADMIN."""

    name: str
    owner: int | None = None
    group: int | None = None
    multi_queue: bool = False


class State(NamedTuple):
    """What the kernel shows of a device; owner and group are None when unset."""

    is_tap: bool
    owner: int | None
    group: int | None
    multi_queue: bool


def require_device() -> None:
    """Raises KernelError when this process can create no device."""
    os.close(_open())


@contextmanager
def created(wanted: Wanted, selinux_context: str = "") -> Iterator[int]:
    """Create the device in the thread's namespace, down; yields a descriptor for `keep`.

    Nothing is left of it should the block not get that far, or the process die. With a context it
    stays at once (see `_create_as`). Raises KernelError, EBUSY when there is one of that name.
    """
    if selinux_context and os.path.exists(_SELINUX):
        _create_as(wanted, selinux_context)
        yield -1
        return
    fd = _open()
    try:
        for what, request, argument in _ioctls(wanted):
            _ioctl(fd, what, request, argument)
        _lower_carrier(fd)
        yield fd
    finally:
        os.close(fd)


def keep(fd: int, name: str) -> None:
    """Let the device stay when nobody has it open. Raises KernelError."""
    if fd >= 0:
        _ioctl(fd, f"make tap {name} persistent", _TUNSETPERSIST, 1)


def state(netlink: Netlink, name: str) -> State | None:
    """What the kernel shows of the device, None if there is none. Raises KernelError."""
    message = bytes(_INFO_BYTES) + attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
    gone = frozenset({errno.ENODEV})
    found = netlink.get(Request(f"look up tap {name}", RTM_GETLINK, message, tolerate=gone))
    if found is None:
        return None
    info = attributes(attributes(found, _NLMSG_BYTES + _INFO_BYTES).get(_IFLA_LINKINFO, b""))
    data = attributes(info.get(_INFO_DATA, b""))
    return State(
        _number(data, _TUN_TYPE) == _IFF_TAP,
        _number(data, _TUN_OWNER),
        _number(data, _TUN_GROUP),
        bool(_number(data, _TUN_MULTI_QUEUE)),
    )


def _open() -> int:
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise kernel_error(f"open {DEVICE}", error) from error


def _ioctls(wanted: Wanted) -> list[tuple[str, int, bytes | int]]:
    """The requests that create the device: what for, number, argument.

    A device that exists is an error, not what is opened. Who opens it later says anew which headers
    its frames have.
    """
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
    if wanted.multi_queue:
        flags |= _IFF_MULTI_QUEUE
    what = f"create tap {wanted.name}"
    ioctls: list[tuple[str, int, bytes | int]] = [
        (what, _TUNSETIFF, _IFREQ.pack(os.fsencode(wanted.name), flags))
    ]
    for key, request, value in (
        ("owner", _TUNSETOWNER, wanted.owner),
        ("group", _TUNSETGROUP, wanted.group),
    ):
        if value is not None:
            ioctls.append((f"{what} with {key} {value}", request, _signed(value)))
    return ioctls


def _create_as(wanted: Wanted, context: str) -> None:
    """Create the device in a process of that SELinux context, whose label it then has.

    The kernel gives a device its creator's label, and lets a process choose another one only when
    it executes a program. Raises KernelError.
    """
    ioctls = [*_ioctls(wanted), (f"make tap {wanted.name} persistent", _TUNSETPERSIST, 1)]
    with _exec_label(context):
        _carry_out(ioctls)


@contextmanager
def _exec_label(context: str) -> Iterator[None]:
    """Programs that this thread executes run in the context; the label is reset (W-TP5)."""
    what = f'set the SELinux context "{context}" for a new process'
    try:
        with open(_EXEC_LABEL, "wb", buffering=0) as file:
            file.write(context.encode())
    except OSError as error:
        raise kernel_error(what, error) from error
    try:
        yield
    finally:
        fd = os.open(_EXEC_LABEL, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"")
        finally:
            os.close(fd)


def _carry_out(ioctls: list[tuple[str, int, bytes | int]]) -> None:
    """Have a new process send the device the ioctls. Raises KernelError."""
    arguments = [f"{request}={_as_text(argument)}" for _, request, argument in ioctls]
    what = f"{ioctls[0][0]} in a process of its own"
    fd = _open()
    command = [sys.executable, "-IS", "-c", _CARRY_OUT, str(fd), *arguments]
    try:
        with inheriting(fd):
            done = processes.run(
                command, b"", seconds=_CHILD_SECONDS, most=_MOST_BYTES, own_program=True
            )
    except OSError as error:
        raise kernel_error(what, error) from error
    except subprocess.TimeoutExpired as error:
        raise KernelError(what, errno.ETIMEDOUT) from error
    finally:
        os.close(fd)
    if done.stdout:
        step, number = map(int, done.stdout.split())
        raise KernelError(ioctls[step - 1][0], number, "in a process of its own")
    if done.returncode:
        raise KernelError(what, errno.EIO, done.stderr.decode(errors="replace").strip())


def _as_text(argument: bytes | int) -> str:
    return f"x{argument.hex()}" if isinstance(argument, bytes) else str(argument)


def _ioctl(fd: int, what: str, request: int, argument: bytes | int) -> None:
    try:
        fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise kernel_error(what, error) from error


def _lower_carrier(fd: int) -> None:
    """Have no carrier before anybody uses the device, as later; Linux before 5.0 cannot."""
    try:
        fcntl.ioctl(fd, _TUNSETCARRIER, struct.pack("=i", 0))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise kernel_error("set the carrier of a tap", error) from error


def _signed(value: int) -> int:
    """A number of 32 bits as ioctl takes it by value: as a C int."""
    return value - (1 << 32) if value >= 1 << 31 else value


def _number(data: dict[int, bytes], kind: int) -> int | None:
    return int.from_bytes(data[kind], sys.byteorder) if kind in data else None
