"""Network managers that have taken the plugins' links for theirs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel import links
from cni_py.kernel.netlink import Netlink

from .finding import fine, look, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .examinations import Places
    from .finding import Finding


class _Manager(NamedTuple):
    """Its folder with a file an interface's index, the line of one that it manages, a remedy."""

    name: str
    folder: str
    managed: tuple[str, ...]
    remedy: str


_MANAGERS = (
    _Manager(
        "NetworkManager",
        "/run/NetworkManager/devices",
        ("managed=true",),
        "printf '[keyfile]\\nunmanaged-devices=interface-name:veth*;{names}\\n' > "
        "/etc/NetworkManager/conf.d/cni.conf; systemctl reload NetworkManager",
    ),
    _Manager(
        "systemd-networkd",
        "/run/systemd/netif/links",
        ("ADMIN_STATE=configured", "ADMIN_STATE=configuring", "ADMIN_STATE=failed"),
        "printf '[Match]\\nName=veth* {names}\\n[Link]\\nUnmanaged=yes\\n' > "
        "/etc/systemd/network/05-cni.network; networkctl reload",
    ),
)


def examine(places: Places) -> Iterator[Finding]:
    """Look at what each says of our bridges and host ends."""
    named = {one.network.bridge for one in places.configured}
    bridges = named - {""}
    with Netlink() as host:
        own = [
            one
            for one in links.dump(host)
            if ", net: " in one.alias or (one.kind == "bridge" and one.name in bridges)
        ]
    for manager in _MANAGERS:
        if not os.path.isdir(manager.folder):
            continue
        taken = [one.name for one in own if _manages(manager, one.ifindex)]
        if taken:
            shown = ", ".join(taken[:5]) + (" ..." if len(taken) > 5 else "")
            text = (
                f"{manager.name} manages {shown}: it takes addresses and routes off when it likes"
            )
            names = " ".join(sorted(bridges)).replace(" ", ";interface-name:")
            if manager.name == "systemd-networkd":
                names = " ".join(sorted(bridges))
            yield look(text, manager.remedy.replace("{names}", names))
        else:
            yield fine(f"{manager.name} leaves the plugins' links alone")
    if not any(os.path.isdir(one.folder) for one in _MANAGERS):
        yield note("no network manager is running")


def _manages(manager: _Manager, index: int) -> bool:
    try:
        with open(f"{manager.folder}/{index}", errors="replace") as file:
            lines = [line.strip() for line in file]
    except OSError:
        return False
    return any(one in lines for one in manager.managed)
