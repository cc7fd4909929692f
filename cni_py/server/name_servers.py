"""The DNS servers of networks' names are watched, and started again where one has died.

Their ends are events (pidfd_open(2)); which there are is looked up now and then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni_py.names import dnsmasq

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_py.kernel.daemons import Daemon

_LOOK_SECONDS = 2.0
# One that cannot be started, for somebody has its port: how long until the next attempt.
_LONGEST_SECONDS = 60.0


class NameServers:
    """Those of this network namespace. `next_look` is when to `look`, as `time.monotonic` counts.

    `watch` and `unwatch` have an action carried out once a descriptor can be read.
    """

    def __init__(
        self, watch: Callable[[int, Callable[[], None]], None], unwatch: Callable[[int], object]
    ) -> None:
        self.next_look = 0.0
        self._watch, self._unwatch = watch, unwatch
        self._alive: dict[str, Daemon] = {}
        self._pause = _LOOK_SECONDS

    def look(self) -> bool:
        """See which there are; whether one is dead that should not be. Raises CniError."""
        wanted = set(dnsmasq.here())
        for name in set(self._alive) - wanted:
            self._forget(name)
        dead = False
        for name in wanted - set(self._alive):
            found = dnsmasq.running(name)
            if found is None:
                dead = True
                continue
            self._alive[name] = found
            self._watch(found.fd, lambda name=name: self._ended(name))  # type: ignore[misc]
        self._pause = min(self._pause * 2, _LONGEST_SECONDS) if dead else _LOOK_SECONDS
        self.next_look = time.monotonic() + self._pause
        return dead

    def close(self) -> None:
        """Watch nothing any more."""
        for name in list(self._alive):
            self._forget(name)

    def _ended(self, name: str) -> None:
        self._forget(name)
        self.next_look = 0.0

    def _forget(self, name: str) -> None:
        one = self._alive.pop(name)
        self._unwatch(one.fd)
        one.close()
