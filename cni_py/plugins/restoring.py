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

from . import firewall, firewall_zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni_py.kernel.nftables import Command

# Each has `restored()`; isolation first.
MODULES = (
    "cni_py.plugins.firewall",
    "cni_py.plugins.spoof_check",
    "cni_py.plugins.masquerade",
    "cni_py.plugins.portmap",
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
    _restore_nftables(done, [some for some, _ in wanted if some])
    _restore_iptables(done, [some for _, some in wanted])
    for record in _attempt(done, firewall.lost_sources) or ():
        _attempt(done, partial(firewall_zone.set_up, record))
        done.firewalld += len(record.addresses)


def _restore_nftables(done: Restored, wanted: list[list[Command]]) -> None:
    commands = [one for some in wanted for one in some]
    done.nftables = len(commands)
    if commands and _attempt(Restored(), partial(_apply, commands)) is None:
        # What is wrong with one module's must not keep the others'.
        for some in wanted:
            _attempt(done, partial(_apply, some))


def _restore_iptables(done: Restored, wanted: list[_Lines]) -> None:
    lines: _Lines = {}
    for some in wanted:
        for where, listed in some.items():
            lines.setdefault(where, []).extend(listed)
    for (version, table), listed in lines.items():
        if listed:
            _attempt(done, partial(iptables.restore, version, table, listed, _WHAT))
            done.iptables += len(listed)


def _apply(commands: list[Command]) -> bool:
    nftables().apply(_WHAT, *commands)
    return True


def _attempt(done: Restored, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (CniError, OSError) as error:
        done.errors.append(str(error))
        return None
