"""What no container can be using any more, as `cni-py gc --dry-run` finds it (decision 7)."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from cni_py.garbage import collect
from cni_py.inventory.reading import read
from cni_py.spec.errors import CniError

from .finding import fine, look, unseen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.runtime import Network

    from .examinations import Places
    from .finding import Finding

_SHOWN = 3


def examine(places: Places) -> Iterator[Finding]:
    """Ask every plugin of every configured network, then look at who is known and gone."""
    if os.geteuid() != 0:
        yield unseen("only root can tell what has leaked", "sudo cni-py doctor")
        return
    networks = [one.loaded for one in places.configured]
    findings = [one for network in networks for one in _of_network(network, str(places.folder))]
    findings += _gone(places.net_dir, frozenset(one.name for one in networks))
    yield from findings
    if not findings:
        yield fine("nothing has outlived its container")


def _of_network(network: Network, folder: str) -> Iterator[Finding]:
    try:
        collected = list(collect(network, None, dry=True, path=folder))
    except CniError as error:
        yield unseen(f"what {network.path} has leaked cannot be told: {error}")
        return
    for each in collected:
        if each.error:
            yield unseen(f"{network.path}: {each.type} cannot tell what leaked: {each.error}")
        if each.found:
            shown = "; ".join(map(str, each.found[:_SHOWN]))
            more = f"; {len(each.found) - _SHOWN} more" if len(each.found) > _SHOWN else ""
            left = f"{each.type} of {network.name} has left {len(each.found)} things behind: "
            yield look(f"{left}{shown}{more}", shlex.join(("cni-py", "gc", network.path)))


def _gone(net_dir: str, configured_names: frozenset[str]) -> Iterator[Finding]:
    """What is left of attachments to networks that GC cannot be asked for, and in caches."""
    for one in read(net_dir).attachments:
        cached = [path for path in one.files if path.startswith("/var/lib/cni/results/")]
        if one.state != "gone" or (one.network in configured_names and not cached):
            continue
        text = (
            f"{one.container_id}/{one.ifname} of {one.network} is gone ({one.why}), and is still "
        )
        text += f"known by {', '.join(one.evidence)}"
        words = ("rm", *cached) if cached else ("cni-py", "ipam", "release", one.container_id)
        yield look(text, shlex.join(words))
