"""Kernel parameters under /proc/sys, as the thread's network namespace shows them."""

from __future__ import annotations

import errno
import os

from .errors import KernelError, kernel_error

_ROOT = "/proc/sys/"
_MAX_BYTES = 4096


def read(key: str) -> str:
    """The value of `key` (with slashes: interface names contain dots). Raises KernelError."""
    try:
        # Not open(): its buffers and its decoder take longer than the kernel.
        fd = os.open(_ROOT + key, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.fsdecode(os.read(fd, _MAX_BYTES)).strip()
        finally:
            os.close(fd)
    except OSError as error:
        raise kernel_error(f"read sysctl {key}", error) from error


def boot_id() -> str:
    """The running boot: another one each time that the machine starts. Raises KernelError."""
    return read("kernel/random/boot_id")


def write(key: str, value: str) -> None:
    """Set `key`. Raises KernelError."""
    try:
        fd = os.open(_ROOT + key, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise kernel_error(f"set sysctl {key} to {value}", error) from error


def write_if_present(key: str, value: str) -> None:
    """Set `key` where the kernel has it: IPv6 can be off, and old kernels lack some keys."""
    try:
        write(key, value)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise


def ensure(key: str, value: str) -> None:
    """Set `key` unless it already has the value. Raises KernelError."""
    if read(key) != value:
        write(key, value)
