"""Who computes the checksums of what a link sends (linux/ethtool.h, ETHTOOL_GTXCSUM)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct

from .errors import kernel_error

_SIOCETHTOOL = 0x8946
_GTXCSUM, _STXCSUM = 0x16, 0x17
_VALUE = struct.Struct("=II")
_REQUEST = struct.Struct("@16sP16x")
_NONE = frozenset({errno.EOPNOTSUPP, errno.ENODEV})


class Ethtool:
    """Questions to the links of the namespace that it was opened in."""

    def __init__(self) -> None:
        """Raises KernelError."""
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise kernel_error("open a socket for ethtool", error) from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def leaves_checksums(self, name: str) -> bool | None:
        """Whether the link leaves checksums to hardware; None if it does not say. KernelError."""
        return self._asked(name, _GTXCSUM, 0, f"read the offloads of {name}")

    def leave_checksums(self, name: str, leave: bool) -> None:  # noqa: FBT001 - the value to set
        """Have it do so or not; what it cannot set stays. Raises KernelError."""
        self._asked(name, _STXCSUM, int(leave), f"set the offloads of {name}")

    def _asked(self, name: str, command: int, value: int, what: str) -> bool | None:
        told = ctypes.create_string_buffer(_VALUE.pack(command, value), _VALUE.size)
        request = _REQUEST.pack(os.fsencode(name), ctypes.addressof(told))
        try:
            fcntl.ioctl(self._socket, _SIOCETHTOOL, request)
        except OSError as error:
            if error.errno in _NONE:
                return None
            raise kernel_error(what, error) from error
        return bool(_VALUE.unpack(told.raw)[1])
