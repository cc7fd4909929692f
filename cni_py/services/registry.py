"""The contract of a registry of services: who is in it, who put it there, and when it goes.

What is in the registry is healthy: whoever registers an instance withdraws it when it is not.
A registrant is one node's hand in the registry: what it has registered stays for as long as it
lives, and goes by itself, within the session's ttl, when it does not. Implementations:
`store_registry`, over every `cni_py.cluster.store`, and `consul`; the tests in
`tests/services/test_battery.py` say the same of each.

Calls raise StoreError (`cni_py.cluster.store_errors`): Unavailable where the registry does not
answer in time, Denied, Claimed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_py.cluster.closing import Closing
from cni_py.cluster.store_errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from .instance import Instance

# Seconds that a session lasts when its registrant is not heard of any more.
DEFAULT_TTL = 15


class Claimed(StoreError):  # noqa: N818 - what it is
    """The instance's id is another node's, or what is there cannot be read. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A record that is no instance: it was damaged, or is not of our making."""

    key: str
    """What the registry calls it."""
    reason: str
    """One line."""


@dataclass(frozen=True, slots=True)
class View:
    """What a registry has at one moment."""

    instances: tuple[Instance, ...]
    """Sorted by service, then id."""
    left_out: tuple[LeftOut, ...] = ()
    lost: str = ""
    """Why the registry is out of reach just now; `""` where it is not. What was last seen stays."""


class Registrant(ABC):
    """One node's hand in the registry, within the block of `Registry.registrant`.

    What was asked for last is what it works towards: where the registry was out of reach, or has
    lost the session, all of it is put there again, until it is withdrawn or the block ends.
    """

    @abstractmethod
    async def register(self, instance: Instance) -> None:
        """Put it in, or in the place of what this node had there by that id.

        At the return the registry has taken it, and `list` tells of it: with Consul as soon as
        Consul's agent has told its servers.
        Raises ValueError for another node's instance; Claimed, and forgets it; another StoreError
        where the registry has it not yet: it will, once it can be reached.
        """

    @abstractmethod
    async def withdraw(self, instance: Instance) -> None:
        """Take it out, by `service` and `id`; one that is not there, or another's, is no error.

        Raises StoreError where it may be there yet: it goes once the registry can be reached, with
        the session at the latest.
        """

    @abstractmethod
    async def leave(self) -> None:
        """Take out all that was registered here, and forget it. Raises StoreError."""

    @property
    @abstractmethod
    def problem(self) -> str:
        """Why the registry has not all of it, or may lose it, just now; `""` if it has."""


class Registry(Closing):
    """One registry. Use it as an asynchronous context manager, within one event loop."""

    @abstractmethod
    async def list(self, service: str = "") -> View:
        """The instances of a service, or of all, after every change that has been answered.

        Raises StoreError, and ValueError for what is no service's name.
        """

    @abstractmethod
    def watch(self, service: str = "") -> AsyncGenerator[View, None]:
        """The instances of a service, or of all: as they are, then at each change, without end.

        It outlives the registry's restarts, and also says when it is out of reach and when it is
        back. Changes that come together make one view. Raises Denied, Unavailable after `close`,
        ValueError for what is no service's name. Whoever stops early calls its `aclose`
        (`contextlib.aclosing`).
        """

    @abstractmethod
    def registrant(
        self, node: str, ttl: int = DEFAULT_TTL
    ) -> AbstractAsyncContextManager[Registrant]:
        """A node's registrant: it renews a session of `ttl` seconds while the block runs.

        The registry need not be there yet. At the end of the block what was registered stays, for
        at most `ttl` seconds: the node's next process may take it over. `leave` withdraws it.
        """
