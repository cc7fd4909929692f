"""Names: what a DNS server answers, and what a file of names says."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cni_py.names import Network, messages, publishing
from cni_py.names import network as kept
from cni_py.spec.dns_names import dns_name
from fuzz.target import require_told, split

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBER = 7
_FOLDER = TemporaryDirectory(prefix="cni-py-fuzz-")
_NETWORK = Network(name="net1", domain="cni.internal", addresses=("10.1.0.1",))


def seeds() -> Iterator[bytes]:
    asked = messages.question(_NUMBER, "web.cni.internal", messages.Kind.A)
    head = asked[:2] + b"\x85\x80\0\1\0\1\0\0\0\0"
    yield b"answer\n" + head + asked[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\n\1\0\2"
    yield b"answer\n" + asked
    yield b"hosts\n# {}\n10.1.0.2 web.cni.internal web\nfd00::2 web\n"
    yield b"name\nWeb_1.shop"


def run(data: bytes) -> None:
    words, rest = split(data)
    action = {"answer": _answer, "hosts": _hosts, "name": _name}.get("".join(words[:1]))
    if action is not None:
        action(rest)


def _answer(message: bytes) -> None:
    try:
        found = messages.answer(message, _NUMBER, messages.Kind.A)
    except ValueError as error:
        require_told(error)
        return
    assert found is None or found.code < 16


def _hosts(content: bytes) -> None:
    before, kept.FOLDER = kept.FOLDER, _FOLDER.name
    try:
        os.makedirs(_NETWORK.hosts, exist_ok=True)
        with open(f"{_NETWORK.hosts}/x", "wb") as file:
            file.write(content)
        read = publishing.published(_NETWORK, "x")
    finally:
        kept.FOLDER = before
    assert read is not None
    assert all(read[1].values())


def _name(text: bytes) -> None:
    try:
        name = dns_name(text.decode(errors="surrogateescape"))
    except ValueError as error:
        require_told(error)
        return
    assert publishing.lines_of(_NETWORK, [("10.1.0.2", [name])])["10.1.0.2"][-1] == name
    asked = messages.question(_NUMBER, name, messages.Kind.AAAA)
    assert len(asked) == 12 + len(name) + 2 + 4
