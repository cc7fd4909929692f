"""Bridges that have room for few ports more."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cni_py.kernel import links
from cni_py.kernel.netlink import Netlink
from cni_py.plugins.routed_port import MAX_PORTS

from .finding import fine, look, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .examinations import Places
    from .finding import Finding

_NEARLY = 900


def examine(_places: Places) -> Iterator[Finding]:
    """Count each bridge's ports."""
    with Netlink() as host:
        found = links.dump(host)
    ports = Counter(one.master for one in found if one.master)
    bridges = [one for one in found if one.kind == "bridge"]
    for one in bridges:
        text = f"bridge {one.name} has {ports[one.ifindex]} of {MAX_PORTS} ports"
        if ports[one.ifindex] >= _NEARLY:
            remedy = 'set "overflow": "routed" in the network, or split it (docs/decisions/0018)'
            yield look(text, remedy)
        elif not one.up:
            yield look(f"{text} and is down", f"ip link set {one.name} up")
        else:
            yield fine(text)
    if not bridges:
        yield note("there is no bridge")
