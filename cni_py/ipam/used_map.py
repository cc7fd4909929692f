"""Which addresses of a range are taken: one bit an address, in a file.

A hint that makes finding a free address cost the same at any fill; the allocation files decide.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cni_py.kernel import state_files
from cni_py.kernel.errors import kernel_error

if TYPE_CHECKING:
    from collections.abc import Iterable

# 2 MiB of bits. Positions beyond (large IPv6 ranges) are not remembered, only tried.
MAX_POSITIONS = 1 << 24
_CHUNK_BYTES = 1 << 13
_ALL_TAKEN = b"\xff"


class UsedMap:
    """The bits of one range of `size` addresses, in the file `path`.

    What is no file there is set aside, to the folder `damaged`.
    """

    def __init__(self, path: str, size: int, damaged: str = "") -> None:
        self._path = path
        self._damaged = damaged
        self._size = size
        self._positions = min(size, MAX_POSITIONS)

    @property
    def exists(self) -> bool:
        """Whether the file is there; without it nothing is known."""
        try:
            mode = os.lstat(self._path).st_mode
        except OSError:
            return False
        if stat.S_ISREG(mode):
            return True
        state_files.set_aside(self._path, "it is no file", self._damaged)
        return False

    def next_free(self, start: int, end: int) -> int | None:
        """The first position in [start, end) whose bit is clear; None if all are set."""
        if start >= self._positions:
            return start if start < end else None
        limit = min(end, self._positions)
        try:
            with open(self._path, "rb", buffering=0) as file:
                position = _search(file.fileno(), start, limit)
        except FileNotFoundError:
            position = start if start < limit else None
        except OSError as error:
            raise kernel_error(f"read {self._path}", error) from error
        if position is None and end > self._positions:
            return self._positions
        return position

    def mark(self, position: int, *, taken: bool) -> None:
        """Set or clear one bit.

        Where that fails (a full disk) the file goes: it is made anew when it is needed.
        """
        if position >= self._positions:
            return
        try:
            fd = state_files.opened(self._path, os.O_RDWR | os.O_CREAT)
            try:
                offset, bit = divmod(position, 8)
                before = (os.pread(fd, 1, offset) or b"\0")[0]
                after = before | 1 << bit if taken else before & ~(1 << bit)
                if after != before:
                    os.pwrite(fd, bytes((after,)), offset)
            finally:
                os.close(fd)
        except state_files.DamagedError as error:
            state_files.set_aside(self._path, str(error), self._damaged)
        except OSError:
            os.unlink(self._path)

    def rewrite(self, taken: Iterable[int]) -> None:
        """Replace all bits."""
        bits = bytearray()
        for position in taken:
            if position >= self._positions:
                continue
            offset, bit = divmod(position, 8)
            if offset >= len(bits):
                bits.extend(bytes(offset + 1 - len(bits)))
            bits[offset] |= 1 << bit
        try:
            state_files.replace(self._path, bytes(bits), self._damaged)
        except OSError as error:
            raise kernel_error(f"write {self._path}", error) from error


def _search(fd: int, start: int, limit: int) -> int | None:
    """The first clear bit in [start, limit); what lies beyond the file's end is clear."""
    position = start
    while position < limit:
        chunk = os.pread(fd, _CHUNK_BYTES, position // 8)
        if not chunk:
            return position
        # Bits of the first byte that lie before the start count as taken.
        first = chunk[0] | ((1 << position % 8) - 1)
        chunk = bytes((first,)) + chunk[1:]
        rest = chunk.lstrip(_ALL_TAKEN)
        base = position // 8 * 8
        if rest:
            byte = rest[0]
            bit = (~byte & (byte + 1)).bit_length() - 1
            found = base + (len(chunk) - len(rest)) * 8 + bit
            return found if found < limit else None
        position = base + len(chunk) * 8
    return None
