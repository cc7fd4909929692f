"""Whether a program can run where it is to be installed: the machine in its ELF header (elf(5))."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from .asked import InstallationError

if TYPE_CHECKING:
    from .root import Root

_MAGIC = b"\x7fELF"
_LITTLE_ENDIAN = 1
_HEADER_BYTES = 20
# e_machine, and what uname(2) calls it.
_NAMES = {
    3: "i686", 22: "s390x", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64",
    258: "loongarch64",
}  # fmt: skip
# What a kernel of a machine also runs.
_ALSO = {"x86_64": "i686", "aarch64": "armv7l"}
_ALIKE = {
    "i386": "i686", "i586": "i686", "armv6l": "armv7l", "armv8l": "armv7l", "arm64": "aarch64",
    "amd64": "x86_64",
}  # fmt: skip
# Programs that tell what an image is for.
_TELLING = ("/bin/sh", "/usr/bin/env", "/sbin/init")


def require_machine(program: bytes, root: Root) -> None:
    """Raise InstallationError for a program that cannot run in the root.

    Of machines that are not known here nothing is said.
    """
    if not program.startswith(_MAGIC) or len(program) < _HEADER_BYTES:
        raise InstallationError("the package's launcher is no program: install cni-py anew")
    made_for, there = machine_of(program), _machine_in(root)
    if made_for and there in _NAMES.values() and made_for not in (there, _ALSO.get(there)):
        where = "this machine" if root.is_own else root.folder
        raise InstallationError(
            f"the package's launcher is for {made_for}, and {where} is {there}: "
            "take cni-py's wheel for it, or build it there"
        )


def machine_of(program: bytes) -> str:
    """What a program was made for, by uname(2)'s name; `""` where that is not known."""
    if len(program) < _HEADER_BYTES or not program.startswith(_MAGIC):
        return ""
    order = "<" if program[5] == _LITTLE_ENDIAN else ">"
    (number,) = struct.unpack_from(f"{order}H", program, 18)
    return _NAMES.get(number, "")


def _machine_in(root: Root) -> str:
    machine = os.uname().machine
    for path in () if root.is_own else _TELLING:
        try:
            with open(root.followed(path), "rb") as file:
                machine = machine_of(file.read(_HEADER_BYTES)) or machine
            break
        except OSError:
            continue
    return _ALIKE.get(machine, machine)
