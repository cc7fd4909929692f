"""How long the kubelet waits for a pod's sandbox: containerd over the CRI, on nodes of their own.

Each node has a containerd, the same network and other executables; they take turns. The pods of a
turn are stopped and removed before the next turn. A pod with the host's network, for which no
plugin is called, shows what containerd and crun need by themselves.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host import OURS, ROOT
from rows import Starts
from tools.cri import Pod

from fixtures.host import Host
from fixtures.kubelet import Node, node

if TYPE_CHECKING:
    from collections.abc import Callable

WARM, STANDALONE, REFERENCE, NONE = "cni-py", "cni-py, standalone", "reference", "no plugin"
_NETWORK: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.85.0.0/16"}]]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def starts(
    reference: Path, turns: dict[int, int], serve: list[str], say: Callable[[str], None]
) -> list[Starts]:
    """Milliseconds of RunPodSandbox: for each number of pods at once, that many turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        image = folder / "image.tar"
        subprocess.run([ROOT / "tests" / "tools" / "make-image", image], check=True)
        nodes = {}
        for name in (WARM, STANDALONE, REFERENCE):
            host = Host.start()
            stack.callback(host.close)
            bin_dir = reference if name == REFERENCE else OURS
            nodes[name] = stack.enter_context(node(host, image, _NETWORK, bin_dir=bin_dir))
        nodes[WARM].host.serve(*serve)
        return [one for count in turns for one in _taken(nodes, count, turns[count], say)]


def _taken(
    nodes: dict[str, Node], count: int, turns: int, say: Callable[[str], None]
) -> list[Starts]:
    measured = {name: Starts(name, count) for name in (*nodes, NONE)}
    say(f"pods, {count} at once")
    # The first of each makes the bridge, and finds everything cold.
    first = 0 if count > 1 else -1
    for turn in range(first, turns):
        for name, one in measured.items():
            # A process for each call takes all processors for long: many at once are tried once.
            if name == STANDALONE and count > 1 and turn > 0:
                continue
            taken = _turn(nodes.get(name) or nodes[WARM], name, count)
            one.milliseconds += taken if turn >= 0 else []
    return list(measured.values())


def _turn(place: Node, name: str, count: int) -> list[float]:
    pods = [Pod(f"pod{index}", host_network=name == NONE) for index in range(count)]
    ended = place.cri.run_together(pods)
    errors = [one.error for one in ended if one.error]
    gone = place.cri.take_down_together(one.answer for one in ended if one.answer)
    errors += [one.error for one in gone if one.error]
    if errors:
        sys.exit(f"bench: {name}: {len(errors)} of {count} pods failed: {errors[0]}")
    return [one.milliseconds for one in ended]
