"""A node's identity: made once, and kept over boots in a file."""

from __future__ import annotations

from uuid import uuid4

import msgspec

from cni_py.kernel import state_files
from cni_py.kernel.errors import kernel_error

from .owner import Owner


def identity(path: str, host: str) -> Owner:
    """The node's identity, made if there is none yet. Raises KernelError."""
    try:
        found = state_files.load(path, Owner)
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error
    if found is None or not found.node:
        found = Owner(str(uuid4()))
        state_files.save(path, msgspec.json.encode(found))
    return Owner(found.node, host)
