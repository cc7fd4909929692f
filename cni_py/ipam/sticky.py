"""Addresses that are kept for a name, for a time after its container has gone.

A file beside host-local's index, which whoever holds the network's lock changes: a name's
addresses, who has them, and until when they are kept once nobody does. The clock is the one that
goes on over boots: one that is set moves the end.
"""

from __future__ import annotations

import os
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import state_files

from .index import Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_py.spec.addresses import IP

_FILE = "names.json"


class Named(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One name's addresses; `until` is 0 while the owner has them."""

    addresses: tuple[str, ...]
    container_id: str
    ifname: str
    seconds: int
    until: float = 0.0

    @property
    def owner(self) -> Owner:
        """Who has them, or had."""
        return Owner(self.container_id, self.ifname)


class Names:
    """The names of one network; `index` is host-local's folder beside the allocations."""

    def __init__(self, index: str) -> None:
        self._path = os.path.join(index, _FILE)
        found = state_files.load(self._path, dict[str, Named])
        self._now = time.time()
        self._is_changed = False
        # A clock that was set back must not keep an address for ever.
        self._named = {
            name: one
            for name, one in (found or {}).items()
            if not one.until or self._now < one.until <= self._now + one.seconds
        }
        self._is_changed = len(self._named) < len(found or {})

    @staticmethod
    def are_in(index: str) -> bool:
        """Whether any name ever had an address."""
        return os.path.lexists(os.path.join(index, _FILE))

    def of(self, name: str) -> frozenset[IP]:
        """What the name had."""
        one = self._named.get(name) if name else None
        return frozenset(map(ip_address, one.addresses)) if one else frozenset()

    def of_others(self, name: str) -> frozenset[IP]:
        """What is kept for other names."""
        others = (one for other, one in self._named.items() if other != name and one.until)
        return frozenset(ip_address(text) for one in others for text in one.addresses)

    def has(self, name: str, owner: Owner, addresses: Iterable[IP], seconds: int) -> None:
        """The owner has these now, and they are kept for the name afterwards."""
        texts = tuple(map(str, addresses))
        self._named[name] = Named(
            addresses=texts, container_id=owner.container_id, ifname=owner.ifname, seconds=seconds
        )
        self._is_changed = True

    def leave(self, is_gone: Callable[[Owner], bool]) -> None:
        """Begin the time of those whose owners have gone."""
        for name, one in self._named.items():
            if not one.until and is_gone(one.owner):
                until = self._now + one.seconds
                self._named[name] = msgspec.structs.replace(one, until=until)
                self._is_changed = True

    def save(self) -> None:
        """Write what has changed. Raises OSError."""
        if self._is_changed:
            state_files.replace(self._path, msgspec.json.encode(self._named))
