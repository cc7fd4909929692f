"""Every examination in its order, none of which keeps the next one from being made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from cni_py.inventory.configurations import configured
from cni_py.spec.errors import CniError

from .finding import unseen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from cni_py.inventory.configurations import Configured

    from .finding import Finding


@dataclass(frozen=True)
class Places:
    """Where things are: executables, the server's sockets, configurations, allocations."""

    folder: Path
    socket: Path
    metrics_socket: Path
    net_dir: str
    data_dir: str

    @cached_property
    def configured(self) -> list[Configured]:
        """The configurations that can be read, which several examinations go by."""
        return configured([], self.net_dir)


# What it looks at, and the module whose `examine` does.
EXAMINATIONS = {
    "installation": "installation",
    "server": "server",
    "kernel": "features",
    "parameters": "parameters",
    "tools": "tools",
    "folders": "folders",
    "configurations": "configurations",
    "addresses": "fill",
    "bridges": "bridges",
    "leaks": "leaks",
    "locks": "locks",
    "deferred DELs": "deferred_dels",
    "other rules": "other_rules",
    "network managers": "managers",
    "containerd": "containerd",
}


def examine(places: Places, subjects: Iterable[str] = tuple(EXAMINATIONS)) -> Iterator[Finding]:
    """Look at all of `subjects`, as far as this process may."""
    for subject in subjects:
        look_at: Callable[[Places], Iterator[Finding]]
        look_at = import_module(f"{__package__}.{EXAMINATIONS[subject]}").examine
        try:
            for one in look_at(places):
                yield msgspec.structs.replace(one, subject=subject)
        except (CniError, OSError) as error:
            text = f"{subject} could not be looked at: {error}"
            yield msgspec.structs.replace(unseen(text), subject=subject)
