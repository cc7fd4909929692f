"""`make bench`: cni-py beside the reference plugins, on the same work, in turn, in one run.

    python bench/compare.py [--reference FOLDER] [--quick] [--json FILE] [--plots FOLDER]
                            [--document FILE]...

Wall times are of whole processes as a runtime sees them, in milliseconds: minimum, median, maximum.
A ratio is the median of the pairs' ratios, ours to the reference's. `--document` writes the tables
into a file, between the marks `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plots
from host import (
    OURS,
    SOCKET,
    Server,
    Suite,
    add_netns,
    children_cpu_seconds,
    delete_netns,
    enter,
    memory,
    require,
    settle,
)

DEBIANS = Path("/usr/lib/cni")
_HEAD = "| work | cni-py | reference | ratio | budget |\n| --- | --- | --- | --- | --- |"


def bridge(name: str, third: int = 85, **keys: Any) -> dict[str, Any]:
    """A bridge network of its own."""
    return {
        "cniVersion": "1.0.0",
        "name": name,
        "type": "bridge",
        "bridge": f"br-{name}"[:15],
        "isDefaultGateway": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": f"10.{third}.0.0/16"}]]},
    } | keys


@dataclass
class Pairs:
    """Values of ours and of the reference's, taken in turn."""

    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(a / b for a, b in zip(self.ours, self.reference, strict=True))

    def row(self, work: str, budget: float | None = None, digits: int = 1) -> str:
        """A line of the table."""
        verdict = ""
        if budget is not None:
            verdict = f"{budget}: {'ok' if self.ratio <= budget else 'missed'}"
        ours, other = (spread(one, digits) for one in (self.ours, self.reference))
        return f"| {work} | {ours} | {other} | {self.ratio:.2f} | {verdict} |"


def spread(values: list[float], digits: int = 1) -> str:
    """Minimum, median and maximum."""
    three = (min(values), statistics.median(values), max(values))
    return " / ".join(f"{one:.{digits}f}" for one in three)


class Bench:
    """One run; `tables` are its results as Markdown, `data` as values."""

    def __init__(self, reference: Path, *, quick: bool) -> None:
        self.warm = Suite("cni-py", OURS, str(SOCKET))
        self.alone = Suite("cni-py standalone", OURS)
        self.reference = Suite("reference", reference)
        self.runs = 9 if quick else 31
        self.quick = quick
        self.server = Server()
        self.tables: dict[str, str] = {}
        self.data: dict[str, Any] = {}

    def say(self, text: str) -> None:
        """Progress."""
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def run(self) -> None:
        """Measure everything."""
        memory_idle = self.server.memory_kib()
        self.single_calls()
        self.steps()
        self.cost_of_a_call(memory_idle)
        self.standalone_calls()
        self.at_once()
        self.allocations()
        self.containers()
        self.server.stop()

    # Single calls.

    def pair(self, ours: Suite, plugin: str, config: dict[str, Any]) -> tuple[Pairs, Pairs]:
        """ADD and DEL, in turn."""
        add, delete = Pairs(), Pairs()
        theirs = config | {
            "name": f"{config['name']}-r",
            "bridge": f"{config.get('bridge')}-r"[:15],
        }
        for index in range(self.runs + 1):
            container = f"c{index}"
            add_netns(container)
            for suite, own, values in (
                (ours, config, "ours"),
                (self.reference, theirs, "reference"),
            ):
                settle()
                getattr(add, values).append(suite.call(plugin, "ADD", own, container))
                settle()
                getattr(delete, values).append(suite.call(plugin, "DEL", own, container))
            delete_netns(container)
        for one in (add, delete):
            # The first run makes the bridge and loads files.
            del one.ours[0], one.reference[0]
        return add, delete

    def once(self, ours: Suite, plugin: str, verb: str, config: dict[str, Any]) -> Pairs:
        """A verb that leaves nothing."""
        values = Pairs()
        for _ in range(self.runs):
            settle()
            values.ours.append(ours.call(plugin, verb, config, "x"))
            settle()
            values.reference.append(self.reference.call(plugin, verb, config, "x"))
        return values

    def single_calls(self) -> None:
        """The warm server against the reference, call by call."""
        work: list[tuple[str, str, dict[str, Any], float | None, float | None]] = [
            ("bridge + host-local", "bridge", bridge("plain"), 0.5, 0.8),
            ("the same with ipMasq", "bridge", bridge("masq", 86, ipMasq=True), 0.25, 0.25),
            ("host-local", "host-local", bridge("ipam", 87), None, None),
            ("loopback", "loopback", {"cniVersion": "1.0.0", "name": "lo"}, None, None),
        ]
        rows = []
        for name, plugin, config, add_budget, delete_budget in work:
            self.say(name)
            add, delete = self.pair(self.warm, plugin, config)
            rows += [add.row(f"{name}: ADD", add_budget), delete.row(f"{name}: DEL", delete_budget)]
            self.data[name] = {"ADD": vars(add), "DEL": vars(delete)}
        status = self.once(self.warm, "bridge", "STATUS", bridge("plain", cniVersion="1.1.0"))
        median = statistics.median(status.ours)
        verdict = f"3 ms: {'ok' if median <= 3 else 'missed'}"
        rows.append(f"{status.row('STATUS').removesuffix(' |')}{verdict} |")
        rows.append(self.once(self.warm, "bridge", "VERSION", {}).row("VERSION"))
        self.tables["calls"] = "\n".join((_HEAD, *rows))

    def standalone_calls(self) -> None:
        """Without the server."""
        self.say("standalone")
        version = self.once(self.alone, "bridge", "VERSION", {})
        add, delete = self.pair(self.alone, "bridge", bridge("alone", 88))
        head = "| work | cni-py, standalone | reference | ratio |\n| --- | --- | --- | --- |"
        rows = [
            one.row(name).rsplit("|", 2)[0] + "|"
            for name, one in (
                ("VERSION", version),
                ("bridge + host-local: ADD", add),
                ("bridge + host-local: DEL", delete),
            )
        ]
        self.tables["standalone"] = "\n".join((head, *rows))

    def steps(self) -> None:
        """Where the time of a warm call goes, from the server's log."""
        rows = ["| step | ADD | DEL |", "| --- | --- | --- |"]
        lines = {
            verb: [one for one in self.server.steps(verb) if one["network"] == "masq"][1:]
            for verb in ("ADD", "DEL")
        }
        names = list(dict.fromkeys(name for one in lines.values() for name in one[-1]["steps"]))
        for name in names:
            cells = [
                f"{statistics.median(line['steps'][name] for line in one):.2f}"
                if name in one[-1]["steps"]
                else ""
                for one in lines.values()
            ]
            rows.append(f"| {name} | {' | '.join(cells)} |")
        totals = [
            f"{statistics.median(line['milliseconds'] for line in one):.2f}"
            for one in lines.values()
        ]
        rows.append(f"| the worker's whole call | {' | '.join(totals)} |")
        self.tables["steps"] = "\n".join(rows)

    # What a call costs.

    def cost_of_a_call(self, memory_idle: int) -> None:
        """CPU seconds of ADD and DEL with ipMasq and without, and memory."""
        self.say("CPU and memory")
        rows = []
        for name, config in (("plain", bridge("plain")), ("masq", bridge("masq", 86, ipMasq=True))):
            cpu = Pairs()
            add_netns("cpu")
            for suite, own, values in (
                (self.warm, config, cpu.ours),
                (
                    self.reference,
                    config | {"name": name + "-r", "bridge": f"br-{name}-r"},
                    cpu.reference,
                ),
            ):
                settle()
                before = children_cpu_seconds() + self.server.cpu_seconds()
                for _ in range(self.runs):
                    suite.call("bridge", "ADD", own, "cpu")
                    suite.call("bridge", "DEL", own, "cpu")
                settle()
                used = children_cpu_seconds() + self.server.cpu_seconds() - before
                values.append(used * 1000 / self.runs)
            delete_netns("cpu")
            work = "CPU ms of an ADD and its DEL" + (", ipMasq" if name == "masq" else "")
            rows.append(cpu.row(work, 0.6))
        head = "| work | cni-py | reference | ratio | budget |\n| --- | --- | --- | --- | --- |"
        self.tables["cpu"] = "\n".join((head, *rows))
        total, peak = memory_idle / 1024, self.private_peak_mib()
        self.tables["memory"] = "\n".join(
            (
                "| memory | MiB | budget |",
                "| --- | --- | --- |",
                (
                    f"| server and waiting workers together (PSS) | {total:.1f} | "
                    f"80: {'ok' if total <= 80 else 'missed'} |"
                ),
                (
                    f"| a worker's private peak during an ADD | {peak:.1f} | "
                    f"12: {'ok' if peak <= 12 else 'missed'} |"
                ),
            )
        )

    def private_peak_mib(self) -> float:
        """The most private memory that a worker was seen to have, looking all the time."""
        peak = 0
        add_netns("peak")
        for _ in range(self.runs):
            pid = self.warm.start("bridge", "ADD", bridge("plain"), "peak")
            while os.waitpid(pid, os.WNOHANG)[0] == 0:
                kinds = ("Private_Clean", "Private_Dirty")
                peak = max([peak, *(memory(one, kinds) for one in self.server.workers())])
            self.warm.call("bridge", "DEL", bridge("plain"), "peak")
        delete_netns("peak")
        return peak / 1024

    # How the cost grows.

    def at_once(self) -> None:
        """Calls that start at the same moment: time to the last."""
        counts = (1, 8, 64) if self.quick else (1, 2, 4, 8, 16, 32, 64, 128)
        rows, series = [], {"cni-py": [], "reference": []}
        suites = ((self.warm, bridge("once", 89)), (self.reference, bridge("once-r", 90)))
        names = [f"o{index}" for index in range(counts[-1])]
        for name in names:
            add_netns(name)
        for count in counts:
            self.say(f"{count} at once")
            last = Pairs()
            for _ in range(3 if self.quick else 5):
                for (suite, config), values in zip(
                    suites, (last.ours, last.reference), strict=True
                ):
                    values.append(self.flood(suite, config, names[:count]))
            rows.append(last.row(f"{count} ADDs at once", 0.4 if count == 64 else None, 0))
            series["cni-py"].append((count, statistics.median(last.ours)))
            series["reference"].append((count, statistics.median(last.reference)))
        for name in names:
            delete_netns(name)
        self.tables["at-once"] = "\n".join((_HEAD, *rows))
        self.data["at once"] = series

    def flood(self, suite: Suite, config: dict[str, Any], names: list[str]) -> float:
        """ADDs for all names at once; milliseconds until the last has ended."""
        settle()
        start = time.perf_counter()
        pids = {suite.start("bridge", "ADD", config, name): name for name in names}
        for _ in names:
            pid, status = os.wait()
            require(status, suite, "bridge", "ADD", pids[pid])
        elapsed = (time.perf_counter() - start) * 1000
        for name in names:
            suite.call("bridge", "DEL", config, name)
        return elapsed

    def allocations(self) -> None:
        """ADD and DEL of host-local with a filled pool; ours to ours."""
        counts = (0, 1000, 60000) if self.quick else (0, 1000, 10000, 60000)
        rows = [
            "| allocated | cni-py: ADD | DEL | reference: ADD | DEL |",
            "| --- | --- | --- | --- | --- |",
        ]
        series: dict[str, list[tuple[float, float]]] = {"cni-py": [], "reference": []}
        first = 0.0
        for count in counts:
            self.say(f"{count} allocations")
            cells = []
            for suite in (self.warm, self.reference):
                config = bridge(f"full{count}{suite.name[0]}", 91)
                fill(config["name"], count)
                suite.call("host-local", "ADD", config, "warm-up")
                suite.call("host-local", "DEL", config, "warm-up")
                add, delete = [], []
                for _ in range(self.runs if suite is self.warm or count < 10000 else 5):
                    settle()
                    add.append(suite.call("host-local", "ADD", config, "x"))
                    settle()
                    delete.append(suite.call("host-local", "DEL", config, "x"))
                cells += [spread(add), spread(delete)]
                series[suite.name].append((max(count, 1), statistics.median(add)))
            rows.append(f"| {count:,} | {' | '.join(cells)} |")
            first = first or series["cni-py"][-1][1]
        growth = series["cni-py"][-1][1] / first
        verdict = "ok" if growth <= 1.2 else "missed"
        rows.append(
            f"\nADD with {counts[-1]:,} to ADD with none: {growth:.2f} (budget 1.2: {verdict})."
        )
        self.tables["allocations"] = "\n".join(rows)
        self.data["allocations"] = series

    def containers(self) -> None:
        """ADD and DEL with ipMasq on a host that has other containers already."""
        counts = (1, 100) if self.quick else (1, 100, 1000)
        rows = [
            "| containers | cni-py: ADD | DEL | reference: ADD | DEL |",
            "| --- | --- | --- | --- | --- |",
        ]
        series: dict[str, list[tuple[float, float]]] = {"cni-py": [], "reference": []}
        add_netns("many")
        cells: dict[int, list[str]] = {count: [] for count in counts}
        for suite, third in ((self.warm, 92), (self.reference, 93)):
            config = bridge(f"many-{suite.name[0]}", third, ipMasq=True)
            attached = 0
            for count in counts:
                self.say(f"{count} containers of {suite.name}")
                while attached < count:
                    where = {"netns": "many", "ifname": f"{suite.name[0]}{attached}"}
                    suite.call("bridge", "ADD", config, f"m{attached}", **where)
                    attached += 1
                add, delete = [], []
                for _ in range(9):
                    settle()
                    add.append(suite.call("bridge", "ADD", config, "x", "many"))
                    settle()
                    delete.append(suite.call("bridge", "DEL", config, "x", "many"))
                cells[count] += [spread(add), spread(delete)]
                series[suite.name].append((count, statistics.median(add)))
        rows += [f"| {count:,} | {' | '.join(cells[count])} |" for count in counts]
        self.tables["containers"] = "\n".join(rows)
        self.data["containers"] = series


def fill(network: str, count: int) -> None:
    """Allocation files in the format that both have, from the pool's second address on."""
    folder = Path("/var/lib/cni/networks", network)
    folder.mkdir(parents=True)
    for index in range(count):
        number = index + 2
        (folder / f"10.91.{number >> 8}.{number & 255}").write_bytes(f"x{index}\r\neth0".encode())
    if count:
        number = count + 1
        (folder / "last_reserved_ip.0").write_text(f"10.91.{number >> 8}.{number & 255}")


def write_document(path: Path, tables: dict[str, str]) -> None:
    """Replace what is between the marks of each table that the document has."""
    text = path.read_text()
    for name, table in tables.items():
        marks = f"(<!-- bench:{name} -->\\n)", f"(<!-- /bench:{name} -->)"
        new = rf"\g<1>{table}\n\g<2>"
        text = re.sub(".*?".join(marks), new, text, flags=re.DOTALL)
    path.write_text(text)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="cni-py beside the reference plugins")
    parser.add_argument("--reference", type=Path, default=DEBIANS)
    parser.add_argument("--quick", action="store_true", help="fewer runs and sizes: two minutes")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--document", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    enter()
    bench = Bench(arguments.reference, quick=arguments.quick)
    bench.run()
    about = subprocess.run(
        [arguments.reference / "bridge"], env={}, capture_output=True, text=True, check=False
    ).stderr.splitlines()[:1]
    print(f"reference: {arguments.reference} ({' '.join(about)})\n")
    for name, table in bench.tables.items():
        print(f"{name}\n\n{table}\n")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"tables": bench.tables, "data": bench.data}, indent=1))
    for path in arguments.document:
        write_document(path, bench.tables)
    if arguments.plots is not None:
        for name, x_label, title in (
            ("at once", "ADDs at once", "Time to the last of ADDs at once"),
            ("allocations", "addresses allocated", "host-local ADD in a filled pool"),
            ("containers", "containers on the host", "bridge ADD with ipMasq"),
        ):
            file = arguments.plots / f"{name.replace(' ', '-')}.svg"
            plots.draw(file, title, x_label, "milliseconds", bench.data[name])


if __name__ == "__main__":
    main()
