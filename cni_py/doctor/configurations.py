"""Networks' configurations: what cannot be read, and subnets that two networks give."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from cni_py.inventory.configurations import configured

from .finding import broken, fine, look, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.inventory.configurations import Configured
    from cni_py.inventory.model import Problem

    from .examinations import Places
    from .finding import Finding


def examine(places: Places) -> Iterator[Finding]:
    """Look at each file, and at what they say of one another."""
    problems: list[Problem] = []
    found = configured(problems, places.conf_dir)
    wrong = [*_unusable(problems), *_named_twice(found), *_overlapping(found)]
    yield from wrong
    if not found and not problems:
        yield note(f"{places.conf_dir} has no configuration: runtimes have no network to give")
    elif not wrong:
        yield fine(f"{len(found)} configurations can be read")


def _unusable(problems: list[Problem]) -> Iterator[Finding]:
    for one in problems:
        # The text begins with the file's path.
        yield broken(one.text, "mend it, or move it away: runtimes go by what is in the folder")


def _named_twice(found: list[Configured]) -> Iterator[Finding]:
    files: dict[str, str] = {}
    for one in (each.network for each in found):
        if (first := files.setdefault(one.name, one.file)) != one.file:
            text = f"{one.file} has the name {one.name}, as {first} has: runtimes take the first"
            yield look(text, f"rename the network, or: rm {one.file}")


def _overlapping(found: list[Configured]) -> Iterator[Finding]:
    subnets = {
        (one.network.name, run.subnet) for one in found for ranges in one.ranges() for run in ranges
    }
    ordered = sorted(subnets, key=lambda one: (one[0], str(one[1])))
    for (network, subnet), (other, its) in combinations(ordered, 2):
        if network != other and subnet.version == its.version and subnet.overlaps(its):
            text = f"{network} gives {subnet} and {other} gives {its}: the host has one way to both"
            yield look(text, "give each network a subnet of its own")
