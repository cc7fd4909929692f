"""How the cost grows: with calls at once, with addresses allocated, with containers on the host."""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from host import Sandboxes, Suite, add_netns, bridge, settle
from rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from server import Server

_AFTER_BURST_SECONDS = 3
_MANY = bridge("many", 92, ipMasq=True)
# The reference reads every file of a full pool: fewer runs there.
_SLOW_COUNT = 10_000


def at_once(
    suites: tuple[Suite, Suite],
    box: Sandboxes,
    counts: Iterable[int],
    rounds: int,
    say: Callable[[str], None],
) -> list[Row]:
    """ADDs that start together: time to the last."""
    config = bridge("once", 89)
    rows = []
    for count in counts:
        say(f"{count} ADDs at once")
        row = Row(f"{count} ADDs at once", count=count, reference_count=count)
        row.ratio_budget = 0.4 if count == 64 else None
        # The first round makes the bridge, or the workers that so many calls need.
        for turn in range(rounds + 1):
            for suite, values in zip(suites, (row.ours, row.reference), strict=True):
                settle()
                took = suite.all_at_once("ADD", config, box.names[:count])
                if turn > 0:
                    values.append(took)
                settle()
                suite.all_at_once("DEL", config, box.names[:count])
        rows.append(row)
    return rows


def memory_after(suite: Suite, server: Server, box: Sandboxes, count: int) -> Row:
    """What the server and its workers keep when calls at once are over."""
    config = bridge("burst", 90)
    for verb in ("ADD", "DEL"):
        suite.all_at_once(verb, config, box.names[:count])
    settle(_AFTER_BURST_SECONDS)
    work = f"the same {_AFTER_BURST_SECONDS} seconds after {count} calls at once"
    return Row(work, [server.memory_mib()], unit="MiB")


def allocations(
    suites: tuple[Suite, Suite], counts: Iterable[int], runs: int, say: Callable[[str], None]
) -> list[Row]:
    """host-local alone, with a pool in which `count` addresses are allocated already."""
    networks = {count: bridge(f"full{count}", 91) for count in counts}
    rows = {count: _pair(count, count) for count in networks}
    for count, config in networks.items():
        say(f"{count:,} addresses allocated")
        for suite in suites:
            _fill(suite.networks / config["name"], count)
            # The first call of ours makes the index.
            suite.call("host-local", "ADD", config, "first", "none")
            suite.call("host-local", "DEL", config, "first", "none")
    for run in range(runs):
        for count, config in networks.items():
            for number, suite in enumerate(suites):
                if number == 1 and count >= _SLOW_COUNT and run >= max(3, runs // 4):
                    continue
                for verb, row in zip(("ADD", "DEL"), rows[count], strict=True):
                    settle()
                    took = suite.call("host-local", verb, config, "x", "none")
                    (row.ours, row.reference)[number].append(took)
    return [row for pair in rows.values() for row in pair]


def containers(
    suites: tuple[Suite, Suite],
    box: Sandboxes,
    counts: Iterable[int],
    runs: int,
    seconds: float,
    say: Callable[[str], None],
) -> list[Row]:
    """bridge with ipMasq on a host that has containers already, attached by the same suite.

    They share a namespace. The reference attaches for `seconds` at most, and is measured with what
    it has by then.
    """
    crowds = [_Crowd(suite, add_netns(f"many-{suite.name}")) for suite in suites]
    crowds[1].seconds = seconds
    rows = []
    for count in counts:
        for crowd in crowds:
            say(f"{count:,} containers of {crowd.suite.name}")
            crowd.grow(count)
        # New links announce themselves to all others for some seconds.
        settle(1 + count / 200)
        add, delete = _pair(count, crowds[1].size)
        for index in range(runs + 1):
            netns = box.take()
            for suite, adds, deletes in zip(
                suites, (add.ours, add.reference), (delete.ours, delete.reference), strict=True
            ):
                for verb, values in (("ADD", adds), ("DEL", deletes)):
                    settle()
                    took = suite.call("bridge", verb, _MANY, "x", netns)
                    if index > 0:
                        values.append(took)
        rows += [add, delete]
    return rows


@dataclass
class _Crowd:
    """Containers of one suite in one namespace; attaching them takes at most `seconds`."""

    suite: Suite
    home: str
    seconds: float = math.inf
    size: int = 0

    def __post_init__(self) -> None:
        quiet = ("sysctl", "-q", "net.ipv6.conf.default.disable_ipv6=1")
        subprocess.run(["ip", "netns", "exec", self.home, *quiet], check=True)

    def grow(self, count: int) -> None:
        """Attach as many as are missing, or as there is time for."""
        # No default route for each in the one namespace.
        config = _MANY | {"isDefaultGateway": False, "isGateway": True}
        while self.size < count and self.seconds > 0:
            name = f"e{self.size}"
            self.seconds -= self.suite.call("bridge", "ADD", config, name, self.home, name) / 1000
            self.size += 1


def _pair(count: int, reference_count: int) -> tuple[Row, Row]:
    add, delete = (
        Row(verb, count=count, reference_count=reference_count) for verb in ("ADD", "DEL")
    )
    return add, delete


def _fill(folder: Path, count: int) -> None:
    """Allocation files as both have them, from the subnet's second address on."""
    folder.mkdir(parents=True)
    for index in range(count):
        name = f"10.91.{(index + 2) >> 8}.{(index + 2) & 255}"
        (folder / name).write_bytes(f"x{index}\r\neth0".encode())
    if count:
        (folder / "last_reserved_ip.0").write_text(name)
