"""Single calls, ours and the reference's in turn: wall time, steps, CPU time, memory."""

from __future__ import annotations

import os
import resource
import statistics
import time
from typing import TYPE_CHECKING

from host import Config, Sandboxes, Suite, bridge, settle
from rows import Row
from server import PRIVATE, Server, family, memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAIN = bridge("plain", 85)
MASQUERADE = bridge("masq", 86, ipMasq=True)
_IPAM = bridge("ipam", 87)
_LOOPBACK: Config = {"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}
_STATUS = PLAIN | {"cniVersion": "1.1.0"}

_REST_OF_CALL = "the rest of the worker's call"
_OUTSIDE = "launcher, hand-over, end of the process"
_WHOLE = "**whole, as the runtime sees it**"


def add_and_delete(
    work: str, plugin: str, config: Config, suites: tuple[Suite, Suite], box: Sandboxes, runs: int
) -> tuple[Row, Row]:
    """ADD and DEL of one attachment, each time in another container."""
    add, delete = Row(f"{work}: ADD"), Row(f"{work}: DEL")
    for index in range(runs + 1):
        container, netns = f"c{index}", box.take()
        for suite, adds, deletes in zip(
            suites, (add.ours, add.reference), (delete.ours, delete.reference), strict=True
        ):
            settle()
            adds.append(suite.call(plugin, "ADD", config, container, netns))
            settle()
            deletes.append(suite.call(plugin, "DEL", config, container, netns))
    for row in (add, delete):
        # The first run makes the bridge and loads files.
        del row.ours[0], row.reference[0]
    return add, delete


def asking(
    work: str, verb: str, config: Config, ours: Suite, reference: Suite | None, runs: int
) -> Row:
    """A verb of bridge that changes nothing."""
    row = Row(work)
    for _ in range(runs):
        for suite, values in ((ours, row.ours), (reference, row.reference)):
            if suite is not None:
                settle()
                values.append(suite.call("bridge", verb, config, "none", "none"))
    return row


def warm_calls(
    suites: tuple[Suite, Suite], box: Sandboxes, runs: int, *, status: bool
) -> list[Row]:
    """Ours with the server; `status` is whether the reference knows STATUS."""
    rows: list[Row] = []
    work: tuple[tuple[str, str, Config, float | None, float | None], ...] = (
        ("bridge + host-local", "bridge", PLAIN, 0.5, 0.8),
        ("bridge + host-local, ipMasq", "bridge", MASQUERADE, 0.25, 0.25),
        ("host-local", "host-local", _IPAM, None, None),
        ("loopback", "loopback", _LOOPBACK, None, None),
    )
    for name, plugin, config, *budgets in work:
        pair = add_and_delete(name, plugin, config, suites, box, runs)
        for row, budget in zip(pair, budgets, strict=True):
            row.ratio_budget = budget
            rows.append(row)
    ours, reference = suites
    row = asking("bridge: STATUS", "STATUS", _STATUS, ours, reference if status else None, runs)
    row.budget = 3
    return [*rows, row, asking("bridge: VERSION", "VERSION", {}, *suites, runs)]


def standalone_calls(suites: tuple[Suite, Suite], box: Sandboxes, runs: int) -> list[Row]:
    """Ours without the server."""
    config = bridge("alone", 88)
    add, delete = add_and_delete("bridge + host-local", "bridge", config, suites, box, runs)
    add.budget = 200
    rows = [add, delete, asking("bridge: VERSION", "VERSION", {}, *suites, runs)]
    for row in rows:
        row.work += ", standalone"
    return rows


def steps(server: Server, rows: list[Row]) -> dict[str, dict[str, float]]:
    """Where the time of the bridge calls of `rows` went, by the server's log; medians."""
    columns: dict[str, dict[str, float]] = {}
    lines = server.calls()
    for (network, verb), row in zip(
        ((network, verb) for network in ("plain", "masq") for verb in ("ADD", "DEL")),
        rows,
        strict=False,
    ):
        mine = [one for one in lines if (one.get("network"), one.get("verb")) == (network, verb)]
        # As in the rows, the first is left out.
        mine = mine[1 : len(row.ours) + 1]
        names = dict.fromkeys(name for one in mine for name in one["steps"])
        column = {
            name: statistics.median(one["steps"].get(name, 0.0) for one in mine) for name in names
        }
        column[_REST_OF_CALL] = statistics.median(
            one["milliseconds"] - sum(one["steps"].values()) for one in mine
        )
        column[_OUTSIDE] = statistics.median(
            wall - one["milliseconds"] for wall, one in zip(row.ours, mine, strict=True)
        )
        column[_WHOLE] = statistics.median(row.ours)
        columns[verb if network == "plain" else f"{verb}, ipMasq"] = column
    return columns


def processor_time(
    suites: tuple[Suite, Suite], server: Server, box: Sandboxes, blocks: int
) -> list[Row]:
    """CPU milliseconds of an ADD and its DEL, by blocks of calls that follow each other.

    Ours: the launcher, the server, and its workers. The reference: the process and its children.
    """
    calls = 20

    def used() -> float:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime + server.cpu_seconds()

    rows = []
    for work, config in (("ADD + DEL", PLAIN), ("ADD + DEL, ipMasq", MASQUERADE)):
        row = Row(f"CPU time of {work}", ratio_budget=0.6)
        for _ in range(blocks):
            for suite, values in zip(suites, (row.ours, row.reference), strict=True):
                netns = box.take()
                settle()
                before = used()
                for _ in range(calls):
                    suite.call("bridge", "ADD", config, "cpu", netns)
                    suite.call("bridge", "DEL", config, "cpu", netns)
                settle()
                values.append((used() - before) * 1000 / calls)
        rows.append(row)
    return rows


def private_memory(
    warm: Suite, alone: Suite, reference: Suite, server: Server, box: Sandboxes, runs: int
) -> list[Row]:
    """The most private memory seen in one ADD, looking all the time it runs."""
    worker = Row("private peak of an ADD: a worker", unit="MiB", budget=12)
    process = Row("private peak of an ADD: standalone", unit="MiB")
    for _ in range(runs):
        worker.ours.append(_peak(warm, box.take(), lambda _: max(map(_private, server.workers()))))
        process.ours.append(_peak(alone, box.take(), _private_of_family))
        worker.reference.append(_peak(reference, box.take(), _private_of_family))
    process.reference = worker.reference
    return [worker, process]


def _peak(suite: Suite, netns: str, look: Callable[[int], float]) -> float:
    call = suite.prepare("bridge", "ADD", PLAIN, "peak", netns, "eth0")
    call.start()
    peak = 0.0
    while os.waitid(os.P_PID, call.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, look(call.pid))
    call.require(*call.finish())
    suite.call("bridge", "DEL", PLAIN, "peak", netns)
    settle()
    return peak


def _private(pid: int) -> float:
    return memory_mib(pid, PRIVATE)


def _private_of_family(pid: int) -> float:
    """A plugin and the IPAM plugin that it has started."""
    return sum(map(_private, family(pid)))


def floor(path: Path, runs: int) -> list[float]:
    """Wall milliseconds of a process that does nothing: what the starting itself costs."""
    values = []
    for _ in range(runs):
        settle()
        start = time.perf_counter()
        pid = os.posix_spawn(path, [str(path)], {})
        os.waitpid(pid, 0)
        values.append((time.perf_counter() - start) * 1000)
    return values
