"""`cni-py doctor`: what of this host keeps the plugins from working, or from working well."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from cni_py.installation import launcher_program
from cni_py.ipam.delegation import is_ours
from cni_py.kernel import deferred, iptables
from cni_py.kernel.nftables import nftables
from cni_py.plugins import firewall_record
from cni_py.skel import EXECUTABLES
from cni_py.spec.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Finding(NamedTuple):
    """One thing looked at: whether it is as it should be, what it is, and what to do."""

    good: bool
    text: str
    advice: str = ""


def _fine(text: str) -> Finding:
    return Finding(good=True, text=text)


def _look(text: str, advice: str) -> Finding:
    return Finding(good=False, text=text, advice=advice)


def examine(folder: Path, server_socket: Path) -> Iterator[Finding]:
    """Look at the installation in `folder`, the server, and what the plugins need."""
    yield from _executables(folder)
    yield _launcher()
    yield _server(server_socket)
    yield from _deferred()
    yield _nftables()
    yield _iptables()
    yield from _forwarding()


def _executables(folder: Path) -> Iterator[Finding]:
    for name in EXECUTABLES:
        path = folder / name
        if not path.exists():
            yield _look(f"{path} is missing", f"cni-py install {folder}")
        elif not is_ours(str(path)):
            yield _look(f"{path} is not cni-py's", f"cni-py install {folder}")
        elif not os.access(path, os.X_OK):
            yield _look(f"{path} is not executable", f"chmod 755 {path}")
        else:
            yield _fine(f"{path} is cni-py's")


def _launcher() -> Finding:
    if launcher_program() is not None:
        return _fine("the launcher is compiled")
    advice = "install a C compiler and cni-py again: without a launcher calls cannot use the server"
    return _look("the package was built without the launcher", advice)


def _server(path: Path) -> Finding:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            text = f"no server listens at {path} ({error.strerror})"
            advice = "systemctl enable --now cni-py.socket, or cni-py serve; calls work without it"
            return _look(text, advice)
    return _fine(f"a server listens at {path}")


def _deferred() -> Iterator[Finding]:
    """DELs that a launcher has written down."""
    try:
        names = deferred.pending()
    except CniError as error:
        yield _look(error.msg, error.details)
        return
    if names:
        since = time.clock_gettime(time.CLOCK_BOOTTIME) - deferred.seconds_of(names[0])
        text = f"{len(names)} DELs are deferred in {deferred.FOLDER}, one for {since:.0f} s"
        advice = "start a server, or `cni-py gc`; where one runs its log says why they fail"
        yield _look(text, advice)


def _nftables() -> Finding:
    try:
        nftables()
    except CniError as error:
        return _look(error.msg, error.details)
    return _fine("libnftables can be loaded")


def _forwarding() -> Iterator[Finding]:
    """Containers that our table lets through and iptables does not (docs/firewall.md)."""
    versions = {
        version
        for record in firewall_record.live_records()
        if record.backend == "nftables"
        for version in record.versions
    }
    for version in sorted(versions):
        if iptables.available(version) and iptables.forward_drops(version):
            text = f"FORWARD of iptables drops by default, also IPv{version} of containers whose "
            text += "firewall plugin has the backend nftables"
            yield _look(text, 'set its backend to "iptables", or accept the containers in FORWARD')


def _iptables() -> Finding:
    if iptables.available(4) and iptables.available(6):
        return _fine("iptables and ip6tables are installed")
    text = "iptables is not installed"
    return _look(text, 'needed for ipMasqBackend "iptables" only')
