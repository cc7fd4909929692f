"""The launcher's target: built with clang, libFuzzer and the sanitizers for addresses and C."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "launcher"
SOURCE = Path(__file__).parent / "launcher.c"
# Three parts with two bytes of length each.
LARGEST_BYTES = 3 * (2 + 0xFFFF) + 3

WORDS = [
    *(b"CNI_PY_SOCKET=", b"CNI_NETNS=/run/netns/c1", b"CNI_COMMAND=STATUS", b"CNI_ARGS=", b"CNI1"),
    *(b"\3\0V\1\1", b"\3\0V\1\2", b"\3\0V\5\7", b"\2\0N?", b"E{the call was not understood"),
    *(b"\1\0A", b"\1\0W", b"\2\0X\0", b"\2\0X\1", b"\3\0E{}", b"/opt/cni/bin/bridge", b"\0"),
]
_ENVIRONMENT = b"CNI_COMMAND=ADD\0CNI_NETNS=/run/netns/c1\0CNI_ARGS=A=B\0PATH=/bin\0"
_NO_SOCKET = b"CNI_PY_SOCKET=\0CNI_COMMAND=STATUS\0"
_LONG_SOCKET = b"CNI_PY_SOCKET=/" + b"x" * 107 + b"\0"


def seeds() -> Iterator[bytes]:
    """Every answer of a server, every flag, and environments of several sizes."""
    begun, writing, ended, refused = b"A", b"W", b"X\0", b'E{"code": 4}'
    dialogues = (
        (begun, writing, ended),
        (begun, ended),
        (begun,),
        (begun, writing),
        (refused,),
        (begun, b"X\0\0", b"X", b"?", b"E", b"X\7"),
        (b"E" + b"x" * 5000,),
        (b"V\1\1", begun, ended),
        (b"V\5\7",),
        (b"V\2\2", begun, ended),
        (b'E{"msg": "the call was not understood"}', begun, ended),
        (b'E{"msg": "the call was not understood"}', b'E{"msg": "the call was not understood"}'),
        (b'Nno "way"\0',),
        (begun, b"V\1\1", b"Nno", ended),
        (),
    )
    for said in dialogues:
        yield _input(0, 1, 0, _ENVIRONMENT, b"/opt/cni/bin/bridge", said)
    for bit in range(8):
        yield _input(1 << bit, 1, 0, _ENVIRONMENT, b"bridge", dialogues[0])
    yield _input(1, 1, 0, _ENVIRONMENT.replace(b"=ADD", b"=DEL"), b"bridge", dialogues[0])
    yield _input(0, 1, 0, _ENVIRONMENT.replace(b"=ADD", b"=DEL"), b"bridge", (begun,))
    for environment in (_NO_SOCKET, _LONG_SOCKET, b"", b"A=" + b"x" * 60000 + b"\0"):
        for repeated in (0, 1, 2, 255):
            yield _input(0, 3, repeated, environment, b"/", dialogues[0])


def _input(
    flags: int, folder: int, repeated: int, environment: bytes, name: bytes, said: tuple[bytes, ...]
) -> bytes:
    answers = b"".join(map(_part, said))
    parts = b"".join(map(_part, (environment, name, answers)))
    return bytes((flags, folder, repeated)) + parts


def _part(data: bytes) -> bytes:
    return struct.pack("<H", len(data)) + data


def build(folder: Path) -> str:
    """Compile the fuzzer; returns its path."""
    compiler = shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError("clang is not installed: `tests/tools/setup fuzz` installs it")
    return _compiled(folder, [compiler, "-fsanitize=fuzzer"])


def build_plain(folder: Path) -> str:
    """Compile what runs each file that it is given once, with any compiler."""
    compiler = shutil.which("gcc") or shutil.which("clang") or "cc"
    return _compiled(folder, [compiler, "-DWITHOUT_FUZZER"])


def _compiled(folder: Path, compiler: list[str]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "program"
    options = ["-g", "-O1", "-std=gnu11", "-Wall", "-Wno-unused-function"]
    options += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([*compiler, *options, str(SOURCE), "-o", str(program)], check=True)
    return str(program)
