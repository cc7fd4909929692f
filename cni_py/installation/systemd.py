"""Having systemd take up what was installed, and let go of what goes."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from .units import AGENT, ENABLED, FOLDER, NAMES, TMPFILES, has_agent, is_unit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .planning import Step
    from .root import Root

# What sd_booted(3) looks for.
_RUNS = "/run/systemd/system"
_SECONDS = 400


def runs(root: Root) -> bool:
    """Whether systemd manages this machine, and is installed for."""
    return root.is_own and os.path.isdir(_RUNS)


def by_hand(root: Root, steps: Iterable[Step]) -> str:
    """The commands that a person gives where systemd does not run, or runs elsewhere."""
    names = " ".join((*ENABLED, AGENT) if _have_agent(steps) else ENABLED)
    if root.is_own:
        return f"systemctl enable --now {names}"
    return f"systemctl --root={root.folder} enable {names}"


def take_up(steps: Iterable[Step]) -> list[str]:
    """Make the folders, enable and start; what could not be done, a line each.

    A server that runs is executed anew with the same sockets; where its unit has changed it is
    started anew, and calls wait for it at systemd's socket. An agent that ends leaves the data
    path as it is.
    """
    steps = list(steps)
    changed = {os.path.basename(one.path) for one in steps if one.action != "same"}
    commands = [
        ("systemd-tmpfiles", "--create", TMPFILES),
        ("systemctl", "daemon-reload"),
        ("systemctl", "enable", "--now", *ENABLED),
        ("systemctl", "restart" if "cni-py.service" in changed else "reload", "cni-py.service"),
    ]
    if "cni-dhcp.service" in changed:
        commands.append(("systemctl", "try-restart", "cni-dhcp.service"))
    if _have_agent(steps):
        commands += [("systemctl", "enable", AGENT), ("systemctl", "restart", AGENT)]
    return _tried(*commands)


def let_go(steps: Iterable[Step]) -> list[str]:
    """Stop and disable the units that are about to go; what could not be done, a line each."""
    going = {one.path for one in steps if one.action in ("removed", "restored")}
    names = [one for one in (*NAMES, AGENT) if f"{FOLDER}/{one}" in going]
    return _tried(("systemctl", "disable", "--now", *names)) if names else []


def forget(steps: Iterable[Step]) -> list[str]:
    """Have systemd read its units after some went; what could not be done, a line each."""
    return _tried(("systemctl", "daemon-reload")) if any(is_unit(one.path) for one in steps) else []


def _have_agent(steps: Iterable[Step]) -> bool:
    return has_agent([one.path for one in steps])


def _tried(*commands: tuple[str, ...]) -> list[str]:
    """Run each; why those failed that did, a line each."""
    return list(filter(None, map(_failure, commands)))


def _failure(command: tuple[str, ...]) -> str:
    called = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{called}: {error}"
    if done.returncode == 0:
        return ""
    said = " ".join(done.stderr.decode(errors="replace").split())
    return f"{called}: {said or f'exit status {done.returncode}'}"
