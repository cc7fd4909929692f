"""Rebuilding the rules of live containers after somebody else has flushed them.

Each module says what its rules would be, from its records; they go in together: one transaction of
nftables, then one iptables-restore an IP version and table, then firewalld's sources. Isolation
comes first, so that nothing gets through in between.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.kernel import iptables, lock
from cni_py.kernel.nftables import nftables
from cni_py.spec.errors import CniError

from . import firewall

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_py.kernel.nftables import Command

# Each has `restored()`; isolation first.
MODULES = (
    "cni_py.plugins.firewall",
    "cni_py.plugins.spoof_check",
    "cni_py.plugins.masquerade",
)

_WHAT = "restore the rules of live containers"

_Lines = dict[tuple[int, str], list[str]]


class Restored(msgspec.Struct):
    """What was done: nftables' commands, iptables' lines, firewalld's sources; and what was not."""

    nftables: int = 0
    iptables: int = 0
    firewalld: int = 0
    errors: list[str] = []


def restore() -> Restored:
    """Rebuild all rules of live containers. Nothing is raised: what fails leaves the rest.

    The rules that are there already stay; those of containers that are gone are not made again.
    """
    done = Restored()
    try:
        with lock.restoring_rules():
            _restore(done)
    except CniError as error:
        done.errors.append(str(error))
    return done


def _restore(done: Restored) -> None:
    wanted: list[tuple[list[Command], _Lines]] = []
    for name in MODULES:
        found = _attempt(done, import_module(name).restored)
        if found is not None:
            wanted.append(found)
    commands = [one for some, _ in wanted for one in some]
    if commands and _attempt(Restored(), partial(_apply, commands)) is None:
        # What is wrong with one module's must not keep the others'.
        for some, _ in wanted:
            if some:
                _attempt(done, partial(_apply, some))
    done.nftables = len(commands)
    lines: _Lines = {}
    for _, some_lines in wanted:
        for where, listed in some_lines.items():
            lines.setdefault(where, []).extend(listed)
    for (version, table), listed in lines.items():
        if listed:
            _attempt(done, partial(iptables.restore, version, table, listed, _WHAT))
            done.iptables += len(listed)
    done.firewalld = _attempt(done, firewall.restore_sources) or 0


def _apply(commands: list[Command]) -> bool:
    nftables().apply(_WHAT, *commands)
    return True


def _attempt(done: Restored, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (CniError, OSError) as error:
        done.errors.append(str(error))
        return None
