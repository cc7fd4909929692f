"""A deferred DEL's file: what a launcher writes is read, anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.kernel import deferred

FIELDS = (b"bridge", b"boot", b"1", b"2", b"3", b"/", b"2")
ENVIRON = (b"CNI_COMMAND=DEL", b"CNI_IFNAME=eth0", b"A=b=c", b"CNI_IFNAME=second", b"odd", b"=x")
CONTENT = b"CNID1" + b"\0".join((*FIELDS, *ENVIRON, b"", b"{}"))


def test_what_a_launcher_writes() -> None:
    one = deferred.parse(CONTENT)
    assert one[:6] == ("bridge", "boot", 1, 2, 3, "/")
    assert one.environ == {"CNI_COMMAND": "DEL", "CNI_IFNAME": "eth0", "A": "b=c"}
    assert one.stdin == b"{}"


def test_input_with_anything() -> None:
    content = b"CNID1" + b"\0".join((*FIELDS[:-1], b"6", *ENVIRON, b"", b"\0\0{}\0\0"))
    assert deferred.parse(content).stdin == b"\0\0{}\0\0"


@pytest.mark.parametrize("length", range(len(CONTENT)))
def test_every_beginning(length: int) -> None:
    """A file that is cut off anywhere is damaged."""
    with pytest.raises(ValueError, match=r"it is|its "):
        deferred.parse(CONTENT[:length])


@given(st.binary(max_size=300), st.integers(0, len(CONTENT)), st.integers(0, 20))
def test_anything(noise: bytes, at: int, skipped: int) -> None:
    """It is read, or ValueError."""
    for content in (noise, b"CNID1" + noise, CONTENT[:at] + noise + CONTENT[at + skipped :]):
        try:
            one = deferred.parse(content)
        except ValueError:
            continue
        assert one.environ["CNI_COMMAND"] == "DEL"


def test_key_is_the_launchers() -> None:
    """FNV-1a's published values: of nothing, and of `foobar`."""
    assert deferred.hash_of(b"") == "cbf29ce484222325"
    assert deferred.hash_of(b"foobar") == "85944171f73967e8"
