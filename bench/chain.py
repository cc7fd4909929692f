"""A list of plugins as Kubernetes and podman have it: each takes the one before's result on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from host import Config, Sandboxes, Suite, bridge, settle
from rows import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAPPING = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
_RATES = {
    "ingressRate": 10**8,
    "ingressBurst": 10**7,
    "egressRate": 10**8,
    "egressBurst": 10**7,
}
_PLUGINS: Sequence[tuple[str, Config]] = (
    ("bridge", bridge("chain", 89, ipMasq=True)),
    ("portmap", {"snat": True, "runtimeConfig": {"portMappings": [_MAPPING]}}),
    ("firewall", {}),
    ("bandwidth", _RATES),
    ("tuning", {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}),
)
_RATIO = 0.25


def calls(suites: tuple[Suite, Suite], box: Sandboxes, runs: int) -> list[Row]:
    """ADD of the whole list and its DEL, then each plugin's part of that.

    Of the plugins those that both have; the budget is for all of them.
    """
    present = [
        (name, {"cniVersion": "1.0.0", "name": "chain", "type": name} | config)
        for name, config in _PLUGINS
        if all((suite.folder / name).exists() for suite in suites)
    ]
    names = [name for name, _ in present]
    whole = Row(f"{' + '.join(names)}: ADD + DEL")
    if len(present) == len(_PLUGINS):
        whole.ratio_budget = _RATIO
    parts = [Row(f"of that {name}: {verb}") for verb in ("ADD", "DEL") for name in names]
    for index in range(runs + 1):
        container, netns = f"c{index}", box.take()
        for suite, side in zip(suites, ("ours", "reference"), strict=True):
            taken = _once(suite, present, container, netns)
            # The first run makes the bridge and loads files.
            if index:
                getattr(whole, side).append(sum(taken))
                for part, milliseconds in zip(parts, taken, strict=True):
                    getattr(part, side).append(milliseconds)
    return [whole, *parts]


def _once(
    suite: Suite, present: Sequence[tuple[str, Config]], container: str, netns: str
) -> list[float]:
    """The milliseconds of each plugin's ADD, then of each one's DEL, in the list's order."""
    adds, deletes = [], []
    result: dict[str, Any] | None = None
    for name, config in present:
        settle()
        given = config if result is None else config | {"prevResult": result}
        milliseconds, output = suite.answered(name, "ADD", given, container, netns)
        result = json.loads(output)
        adds.append(milliseconds)
    for name, config in reversed(present):
        settle()
        given = config | {"prevResult": result}
        deletes.append(suite.call(name, "DEL", given, container, netns))
    return [*adds, *reversed(deletes)]
