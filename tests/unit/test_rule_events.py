"""Which of nftables' events tell that rules of ours are gone."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.kernel.rule_events import any_of_ours

NEWTABLE, DELTABLE, DELCHAIN, DELRULE = 0, 2, 5, 8


def message(kind: int, *names: str, subsystem: int = 10) -> bytes:
    """An event; its names are the attributes 1, 3, and so on."""
    body = b"\1\0\0\0"
    for number, name in enumerate(names):
        value = name.encode() + b"\0"
        body += struct.pack("=HH", 4 + len(value), 1 + 2 * number) + value
        body += b"\0" * (-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(body), subsystem << 8 | kind, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (message(DELTABLE, "cni_py"), True),
        (message(DELTABLE, "filter"), True),
        (message(DELTABLE, "firewalld"), True),
        (message(DELTABLE, "mine"), False),
        (message(NEWTABLE, "cni_py"), False),
        (message(DELTABLE, "cni_py", subsystem=1), False),
        (message(DELRULE, "cni_py", "forward"), False),
        (message(DELCHAIN, "filter", "CNI-FORWARD"), True),
        (message(DELCHAIN, "filter", "CNI-ISOLATION-STAGE-1"), True),
        # DEL deletes a container's own.
        (message(DELCHAIN, "nat", "CNI-0123456789abcdef01234567"), False),
        (message(DELTABLE, "other") + message(DELTABLE, "cni_py"), True),
        (b"", False),
        (message(DELTABLE, "cni_py")[:20], False),
    ],
)
def test_events(data: bytes, expected: bool) -> None:
    assert any_of_ours(data) == expected


@given(st.binary(max_size=200))
def test_anything_is_read_to_its_end(data: bytes) -> None:
    assert any_of_ours(data + b"\0" * 20) in (True, False)
