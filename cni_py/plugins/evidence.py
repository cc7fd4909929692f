"""Why an attachment can be nobody's any more, for a GC that got no list (docs/decisions/0007)."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from cni_py.kernel.netlink import Netlink

from . import veth

if TYPE_CHECKING:
    from .records import Record


class Evidence:
    """What the kernel says, asked once a GC and only if it is needed.

    Each returns `""` where somebody uses what it is about, or may.
    """

    @cached_property
    def _attached(self) -> frozenset[str]:
        with Netlink() as host:
            return veth.attached(host)

    def has_pair(self, label: str) -> bool:
        """Whether there is a host end for a label that begins with an attachment's key.

        It dies with the container's namespace, also where that cannot be seen from here.
        """
        return label.partition(",")[0] in self._attached

    def against_pair(self, label: str) -> str:
        """Of what only attachments by a pair of ours have."""
        return "" if self.has_pair(label) else "its host end is gone"

    def against_record(self, record: Record | None) -> str:
        """Of what a record says the namespace of."""
        if record is None or self.has_pair(record.attachment.key):
            return ""
        return record.why_gone()
