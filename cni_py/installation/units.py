"""systemd's units of the server, the DHCP daemon and the agent, and folders that a boot makes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .asked import InstallationError, Wanted
from .package import conf

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

FOLDER = "/etc/systemd/system"
TMPFILES = "/etc/tmpfiles.d/cni-py.conf"
# What is enabled; the daemon is started by its socket when a container wants an address.
ENABLED = ("cni-py.socket", "cni-py.service", "cni-dhcp.socket")
NAMES = (*ENABLED, "cni-dhcp.service")
# Only where it is asked for: a host without a cluster has no use for it.
AGENT = "cni-py-agent.service"

_MODE = 0o644
# The programs that the units in conf/systemd start.
_SERVER, _DAEMON = "/opt/cni-py/bin/cni-py", "/opt/cni/bin/dhcp"
# systemd takes blanks, quotes, `%`, `$` and backslashes for something else (systemd.service(5)).
_PLAIN = re.compile(r"/[\w./+:@,=~-]+")


def units(command: str, folder: str, *, agent: bool = False) -> list[Wanted]:
    """The units, with `cni-py` at `command` and the executables in `folder`, and tmpfiles.d's file.

    Raises InstallationError.
    """
    names = (*NAMES, AGENT) if agent else NAMES
    programs = {_SERVER: command, _DAEMON: f"{folder}/dhcp"}
    for program in programs.values():
        if not _PLAIN.fullmatch(program):
            raise InstallationError(f"{program!r} cannot be named in a unit of systemd: move it")
    files = [Wanted(f"{FOLDER}/{name}", _filled(name, programs), _MODE, "unit") for name in names]
    folders = (conf() / "systemd" / "cni-py.tmpfiles").read_bytes()
    return [Wanted(TMPFILES, folders, _MODE, "unit"), *files]


def has_agent(paths: Container[str]) -> bool:
    """Whether the agent's unit is one of these files."""
    return f"{FOLDER}/{AGENT}" in paths


def is_unit(path: str) -> bool:
    """Whether a file of an installation is one that systemd reads."""
    return path == TMPFILES or path.startswith(f"{FOLDER}/")


def _filled(name: str, programs: Mapping[str, str]) -> bytes:
    text = (conf() / "systemd" / name).read_text()
    for default, program in programs.items():
        text = text.replace(f"ExecStart={default} ", f"ExecStart={program} ")
    return text.encode()
