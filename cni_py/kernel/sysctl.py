"""Kernel parameters under /proc/sys, as the thread's network namespace shows them."""

from __future__ import annotations

import errno

from .errors import KernelError, kernel_error

_ROOT = "/proc/sys/"


def read(key: str) -> str:
    """The value of `key` (with slashes: interface names contain dots). Raises KernelError."""
    try:
        with open(_ROOT + key) as file:
            return file.read().strip()
    except OSError as error:
        raise kernel_error(f"read sysctl {key}", error) from error


def write(key: str, value: str) -> None:
    """Set `key`. Raises KernelError."""
    try:
        with open(_ROOT + key, "w") as file:
            file.write(value)
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
