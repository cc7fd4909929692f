"""Keys as bytes, and what is below a prefix: the same in each store."""

from __future__ import annotations


def key_bytes(key: str) -> bytes:
    """A key as a store has it. One that is not UTF-8 survives being read and written (PEP 383)."""
    return key.encode("utf-8", "surrogateescape")


def range_end(prefix: bytes) -> bytes:
    """The first key behind all that begin with a prefix; etcd's own zero byte if there is none."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else b"\0"
