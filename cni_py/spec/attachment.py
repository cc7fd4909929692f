"""An attachment's identity, and every name that is derived from it.

The kernel is the database: what belongs to an attachment is found again by a name computed from
(network, container id, ifname), and a label on the resource spells the three out.
"""

from __future__ import annotations

import re
from hashlib import sha512
from typing import NamedTuple

_KEY_DIGITS = 16
_HOST_PREFIX = "veth"
_IFNAME_BYTES = 15


_KEY = re.compile(f"[0-9a-f]{{{_KEY_DIGITS}}}-[0-9a-f]{{{_KEY_DIGITS}}}")

_LABEL = re.compile(
    rf"(?P<key>{_KEY.pattern}), (?:[^,]*, )??net: (?P<network>.*?), if: (?P<ifname>.*?), "
    r"id: (?P<id>[^, ]*)"
)


def is_key(text: str) -> bool:
    """Whether it can be an attachment's key."""
    return _KEY.fullmatch(text) is not None


def network_key(network: str) -> str:
    """A network's short hash: the first 16 hex digits of SHA-512 (reference recipe H-05)."""
    return sha512(_bytes(network)).hexdigest()[:_KEY_DIGITS]


def key_in(label: str) -> str:
    """The key that a label begins with, `""` without one."""
    key = label.partition(",")[0]
    return key if is_key(key) else ""


class Attachment(NamedTuple):
    """One container's place on one network under one interface name (rule GE-02)."""

    network: str
    container_id: str
    ifname: str

    @property
    def key(self) -> str:
        """`h16(network)-h16(ifname:id)`, the reference's key of nft rules (H-05)."""
        own = sha512(_bytes(f"{self.ifname}:{self.container_id}")).hexdigest()[:_KEY_DIGITS]
        return f"{network_key(self.network)}-{own}"

    @property
    def host_ifname(self) -> str:
        """The name of the veth end that stays with the host: `veth` and 11 hex digits, 15 bytes."""
        digits = sha512(_bytes("\0".join(self))).hexdigest()[: _IFNAME_BYTES - len(_HOST_PREFIX)]
        return _HOST_PREFIX + digits

    def label(self, limit: int, note: str = "") -> str:
        """The key and the three names in clear, cut to `limit` bytes; the key comes first.

        The form is the reference's nft comment (2.13), so that a reader knows one for all. A `note`
        for the program goes behind the key, where it is not cut.
        """
        network, container, ifname = (part.replace('"', "") for part in self)
        text = f"{self.key}, {note}net: {network}, if: {ifname}, id: {container}"
        return _bytes(text)[:limit].decode(errors="ignore")


def read_label(label: str) -> Attachment | None:
    """The attachment that a `label` spells out.

    None for anything else, and for one that was cut off: its key does not fit then.
    """
    found = _LABEL.fullmatch(label)
    if found is None:
        return None
    attachment = Attachment(found["network"], found["id"], found["ifname"])
    return attachment if attachment.key == found["key"] else None


def _bytes(text: str) -> bytes:
    """The bytes of a text from the environment, where an ifname need not be UTF-8 (5.3)."""
    return text.encode(errors="surrogateescape")
