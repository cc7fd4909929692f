"""Which of a network's resources GC takes away, and why (spec.md 3.6, docs/decisions/0007).

Where the runtime has listed the attachments that live, the list decides. Without a list only what
evidently outlived its container goes: what lives and what nothing is known of stay.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from .attachment import Attachment, network_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LABEL = re.compile(r", if: (.*), id: (.*)$")
# A node with thousands of leaks needs no line for each in its log.
_SHOWN = 20
_NOT_LISTED = "not among the attachments that the runtime lists as valid"


class Garbage(msgspec.Struct, frozen=True):
    """What GC takes away, whose it was as far as is known, and why it goes."""

    what: str
    whose: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}{' of ' * bool(self.whose)}{self.whose}: {self.why}"


def _unknown() -> str:
    return ""


class Collection:
    """One GC of one network. A dry one takes nothing away: `found` tells what it would take.

    `valid` is the runtime's list, None without one. The labels of the network's attachments begin
    with `prefix`. `unasked` names the executables that GC was not passed on to.
    """

    def __init__(
        self, network: str, valid: Iterable[Attachment] | None, *, dry: bool = False
    ) -> None:
        self.network = network
        self.valid = None if valid is None else frozenset(valid)
        self.dry = dry
        self.found: list[Garbage] = []
        self.unasked: list[str] = []
        self.prefix = f"{network_key(network)}-"
        self._keys = {one.key for one in self.valid or ()}

    def takes(
        self, what: str, owner: Attachment | str, evidence: Callable[[], str] = _unknown
    ) -> bool:
        """Note what is garbage; whether it is to be taken away now.

        `owner` is the attachment, or a label that begins with its key: that of another network is
        never garbage. `evidence` is asked where there is no list: why nobody can use it any more,
        `""` if somebody does or may.
        """
        key = owner.key if isinstance(owner, Attachment) else owner.partition(",")[0]
        return key.startswith(self.prefix) and self._notes(
            what, _shown(owner), evidence, is_valid=key in self._keys
        )

    def takes_of_container(
        self, what: str, container_id: str, evidence: Callable[[], str] = _unknown
    ) -> bool:
        """The same for what is of no single interface of a container: one valid one keeps it."""
        is_valid = any(one.container_id == container_id for one in self.valid or ())
        return self._notes(what, container_id, evidence, is_valid=is_valid)

    def takes_unowned(self, what: str, why: str) -> bool:
        """The same for what no attachment needs, whatever the runtime lists."""
        self.found.append(Garbage(what, "", why))
        return not self.dry

    def lines(self) -> Iterator[str]:
        """What was found, for a person; of many the first ones."""
        for one in self.found[:_SHOWN]:
            yield str(one)
        if len(self.found) > _SHOWN:
            yield f"and {len(self.found) - _SHOWN} more"
        for path in self.unasked:
            yield f"not passed on to {path}, which is not ours"

    def _notes(self, what: str, whose: str, evidence: Callable[[], str], *, is_valid: bool) -> bool:
        listed = "" if is_valid else _NOT_LISTED
        why = evidence() if self.valid is None else listed
        if not why:
            return False
        self.found.append(Garbage(what, whose, why))
        return not self.dry


def _shown(owner: Attachment | str) -> str:
    """`container/interface`, or what a label says."""
    if isinstance(owner, Attachment):
        return f"{owner.container_id}/{owner.ifname}"
    named = _LABEL.search(owner)
    return f"{named[2]}/{named[1]}" if named else ""
