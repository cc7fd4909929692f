"""`make scale`: a cluster of thousands of nodes on one real etcd, their kernels left out.

For each size all nodes start at once, until each knows all others; then single nodes leave and
come, one after another. Beside that, a real agent with its kernel is measured among so many peers.
`--document` writes the tables and plots of docs/scale.md, between the marks `<!-- bench:NAME -->`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_process import Measured, measure
from plots import lines
from simulated_nodes import CONFIG
from tables import write_document

from cni_py.cluster.flannel import CONFIG_KEY, PREFIX
from fixtures.etcd import EtcdCluster

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = Path(__file__).parent
_MIB = 1 << 20


class _UnixHttp(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Costs:
    """What etcd has done since its start, and has: from its metrics."""

    requests: dict[str, float]
    watch_messages: float
    events: float
    sent: float
    received: float
    cpu: float
    memory: float
    database: float

    def since(self, before: Costs) -> Costs:
        """What came after an earlier look; memory and database as they are."""
        requests = {
            name: count - before.requests.get(name, 0) for name, count in self.requests.items()
        }
        return Costs(
            requests,
            self.watch_messages - before.watch_messages,
            self.events - before.events,
            self.sent - before.sent,
            self.received - before.received,
            self.cpu - before.cpu,
            self.memory,
            self.database,
        )


def costs(endpoint: str) -> Costs:
    """Ask etcd."""
    connection = _UnixHttp(endpoint.removeprefix("unix://"))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)

    def of(name: str, method: str) -> float:
        return sum(
            value
            for key, value in found.items()
            if key.startswith(f"{name}{{") and f'grpc_method="{method}"' in key
        )

    methods = ("Range", "Txn", "LeaseGrant", "LeaseKeepAlive", "LeaseRevoke")
    return Costs(
        {one: of("grpc_server_msg_received_total", one) for one in methods},
        of("grpc_server_msg_sent_total", "Watch"),
        found.get("etcd_debugging_mvcc_events_total", 0),
        found["etcd_network_client_grpc_sent_bytes_total"],
        found["etcd_network_client_grpc_received_bytes_total"],
        found["process_cpu_seconds_total"],
        found["process_resident_memory_bytes"],
        found["etcd_mvcc_db_total_size_in_bytes"],
    )


@dataclass
class Simulated:
    """One size: seconds, and what they cost."""

    nodes: int
    whole: int
    converged: list[float] = field(default_factory=list)
    """Of each node, from the start to when it knew all."""
    start: Costs | None = None
    own_cpu: float = 0.0
    """Processor seconds of the simulated nodes meanwhile."""
    join: list[float] = field(default_factory=list)
    leave: list[float] = field(default_factory=list)
    joined: Costs | None = None
    changes: int = 0


class Workers:
    """The processes that the nodes are in."""

    def __init__(self, endpoint: str, ttl: int, count: int, log: Path) -> None:
        self._log = log.open("wb")
        self._processes = [
            subprocess.Popen(
                [sys.executable, str(_FOLDER / "simulated_nodes.py"), endpoint, str(ttl)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
            for _ in range(count)
        ]

    def __len__(self) -> int:
        return len(self._processes)

    def ask(self, place: int, **asked: Any) -> None:
        """Send a command to one."""
        stdin = self._processes[place].stdin
        assert stdin is not None
        stdin.write(json.dumps(asked) + "\n")
        stdin.flush()

    def answer(self, number: int) -> dict[str, Any]:
        """Its answer."""
        stdout = self._processes[number].stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            last = Path(self._log.name).read_text()[-2000:]
            raise SystemExit(f"a process of simulated nodes has ended: {last}")
        found: dict[str, Any] = json.loads(line)
        return found

    def until(self, count: int, seconds: float) -> list[float]:
        """When each node knew `count` nodes."""
        for number in range(len(self)):
            self.ask(number, do="until", count=count, seconds=seconds)
        # Those first that would tell first that nodes have failed.
        answers = [self.answer(number) for number in reversed(range(len(self)))]
        for one in answers:
            if one["failures"]:
                raise SystemExit(f"nodes failed: {one['failures']}")
            if one["left"]:
                text = f"not all know {count:,} nodes after {seconds:.0f} s: {one['left']:,} know"
                raise SystemExit(f"{text} other numbers of them, such as {one['counts']}")
        return [time for one in answers for time in (*one["whole"], *one["light"])]

    def cpu(self) -> float:
        """Processor seconds of all."""
        ticks = 0
        for one in self._processes:
            fields = Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End them."""
        for one in self._processes:
            one.kill()
            one.wait()
        self._log.close()


def simulate(nodes: int, whole: int, options: argparse.Namespace) -> Simulated:
    """All at once, then a few that come and go."""
    found = Simulated(nodes, min(nodes, whole))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cni-scale-")))
        etcd = EtcdCluster(folder).start()
        stack.callback(etcd.close)
        etcd.leader()
        etcd.ctl("put", f"{PREFIX}/{CONFIG_KEY}", CONFIG.decode())
        endpoint = etcd.members[0].endpoint
        workers = Workers(endpoint, options.ttl, options.processes, folder / "nodes.log")
        stack.callback(workers.close)
        # One command each, so that every process has loaded what it needs.
        workers.until(0, 60)
        before = costs(endpoint)
        # The whole ones, which have the most to do, are in a process of their own.
        workers.ask(0, do="start", whole=list(range(1, found.whole + 1)), light=[])
        for place in range(1, len(workers)):
            light = range(found.whole + place, nodes + 1, len(workers) - 1)
            workers.ask(place, do="start", whole=[], light=list(light))
        began = min(workers.answer(number)["at"] for number in range(len(workers)))
        found.converged = [one - began for one in workers.until(nodes, options.seconds)]
        found.start, found.own_cpu = costs(endpoint).since(before), workers.cpu()
        _say(f"{nodes:,} nodes know each other after {max(found.converged):.1f} s")
        time.sleep(options.rest)
        before = costs(endpoint)
        for turn in range(options.changes):
            number = 1 + turn % found.whole
            workers.ask(0, do="leave", number=number)
            began = workers.answer(0)["at"]
            found.leave += [one - began for one in workers.until(nodes - 1, 60)]
            time.sleep(options.rest)
            workers.ask(0, do="start", whole=[number], light=[])
            began = workers.answer(0)["at"]
            found.join += [one - began for one in workers.until(nodes, 60)]
            time.sleep(options.rest)
        found.joined, found.changes = costs(endpoint).since(before), 2 * options.changes
    return found


def _say(text: str) -> None:
    print(f"scale: {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# What is written.


def _quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"{statistics.median(ordered):.2f} / {p99:.2f} / {ordered[-1]:.2f}"


def _cells(name: str, values: Iterator[str]) -> str:
    return f"| {name} | {' | '.join(values)} |"


def cluster_table(rows: list[Simulated]) -> str:
    """Seconds and costs by size."""
    done = [(one, one.start, one.joined) for one in rows if one.start and one.joined]
    lines_of = [
        _cells("", (f"{one.nodes:,} nodes" for one in rows)),
        _cells("---", ("---" for _ in rows)),
        _cells("of these with the whole of an agent", (f"{one.whole:,}" for one in rows)),
        _cells(
            "all start at once, until a node knows all, seconds",
            (_quantiles(one.converged) for one in rows),
        ),
        _cells(
            "processor seconds meanwhile: etcd, nodes",
            (f"{start.cpu:.0f}, {one.own_cpu:.0f}" for one, start, _ in done),
        ),
        *(
            _cells(
                f"etcd: {name} requests", (f"{start.requests[name]:,.0f}" for _, start, _ in done)
            )
            for name in ("Range", "Txn", "LeaseGrant", "LeaseKeepAlive")
        ),
        _cells(
            "etcd: messages of watches", (f"{start.watch_messages:,.0f}" for _, start, _ in done)
        ),
        _cells("etcd: MiB sent", (f"{start.sent / _MIB:,.0f}" for _, start, _ in done)),
        _cells(
            "etcd: MiB of memory, of the database",
            (f"{start.memory / _MIB:,.0f}, {start.database / _MIB:.1f}" for _, start, _ in done),
        ),
        _cells(
            "one node joins, until another knows it, seconds",
            (_quantiles(one.join) for one in rows),
        ),
        _cells(
            "one node leaves, until another knows it, seconds",
            (_quantiles(one.leave) for one in rows),
        ),
        _cells(
            "a change: messages of watches, KiB sent",
            (
                f"{joined.watch_messages / one.changes:,.0f}, "
                f"{joined.sent / one.changes / 1024:,.0f}"
                for one, _, joined in done
            ),
        ),
    ]
    return "\n".join(lines_of)


def agent_table(rows: list[Measured]) -> str:
    """One real agent by the number of its peers."""
    return "\n".join([
        _cells("", (f"{one.peers:,} peers" for one in rows)),
        _cells("---", ("---" for _ in rows)),
        _cells("memory of its own (PSS), MiB", (f"{one.pss:.0f}" for one in rows)),
        _cells("from its start until all is in the kernel, seconds",
               (f"{one.ready:.1f}" for one in rows)),
        _cells("processor seconds of that", (f"{one.ready_cpu:.1f}" for one in rows)),
        _cells("a processor's part while nothing happens", (f"{one.idle:.2%}" for one in rows)),
        _cells("a peer that comes: processor time, ms", (f"{one.change:.0f}" for one in rows)),
        _cells("one that goes: the same", (f"{one.removal:.0f}" for one in rows)),
    ])  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="*", default=[100, 1000, 5000])
    parser.add_argument(
        "--whole", type=int, default=20, help="so many are whole agents, the others light"
    )
    parser.add_argument("--peers", type=int, nargs="*", default=[10, 1000, 5000])
    parser.add_argument("--changes", type=int, default=5, help="nodes that leave and join")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--ttl", type=int, default=24 * 3600, help="of leases, in seconds")
    parser.add_argument("--rest", type=float, default=1.0, help="seconds between changes")
    parser.add_argument("--seconds", type=float, default=500, help="the most for the start")
    parser.add_argument("--document", type=Path)
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    agents = [measure(count, _say) for count in options.peers]
    clusters = [simulate(nodes, options.whole, options) for nodes in options.nodes]
    made = {}
    if clusters:
        made["cluster"] = cluster_table(clusters)
    if agents:
        made["agent"] = agent_table(agents)
    for table in made.values():
        print(table, end="\n\n")
    if options.document:
        write_document(options.document, made)
        _plot(clusters, options.document.with_suffix(""))


def _plot(clusters: list[Simulated], folder: Path) -> None:
    if len(clusters) < 2:
        return
    folder.mkdir(exist_ok=True)
    series = {
        "all start: last": [(one.nodes, max(one.converged)) for one in clusters],
        "all start: median": [(one.nodes, statistics.median(one.converged)) for one in clusters],
        "one joins: last": [(one.nodes, max(one.join)) for one in clusters],
        "one joins: median": [(one.nodes, statistics.median(one.join)) for one in clusters],
    }
    chart = lines("Until the nodes know each other", "nodes", series, unit="s")
    (folder / "converge.svg").write_text(chart)


if __name__ == "__main__":
    main()
