"""Who holds which of the plugins' locks: a call in its work, or one that hangs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni_py.ipam.listing import networks
from cni_py.kernel import lock

from .finding import fine, look, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .examinations import Places
    from .finding import Finding

# A call is refused when it has waited that long (kernel/lock.py).
_LONG_SECONDS = 30.0


def examine(places: Places) -> Iterator[Finding]:
    """Look at host-local's locks, those of attachments, and iptables'."""
    held = lock.holders(_paths(places))
    for path, holder in held.items():
        text = f"{path} is {holder.text}"
        if holder.seconds > _LONG_SECONDS:
            # The lock can be younger than the process, never older.
            text += f", which began {holder.seconds:.0f} s ago"
            yield look(text, f"cat /proc/{holder.pid}/stack; kill {holder.pid}")
        else:
            yield note(text)
    if not held:
        yield fine("nobody holds a lock")


def _paths(places: Places) -> Iterator[str]:
    for network in networks(places.data_dir):
        yield os.path.join(places.data_dir, network, "lock")
    yield from ("/run/xtables.lock", lock.FOLDER)
    try:
        yield from (os.path.join(lock.FOLDER, one) for one in sorted(os.listdir(lock.FOLDER)))
    except OSError:
        return
