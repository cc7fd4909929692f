"""`make bench`: cni-py beside the reference plugins, on the same work, in turn, in one run.

Wall times are of whole processes as a runtime sees them: from the start of the process to the end
of its output and of itself, in milliseconds, minimum / median / maximum. A ratio is the median of
the pairs' ratios, ours to the reference's. `--document` writes the tables into a file, between the
marks `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import chain
import growth
import msgspec
import pods
import ports
import show
import single
from host import OURS, Sandboxes, Suite, add_host, enter, own_netns, wait_until_quiet
from plots import draw_all
from rows import Results, Row
from server import Server
from tables import tables, write_document

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEBIANS = Path("/usr/lib/cni")
_NOTHING = Path("/bin/true")
# What the reference may take to attach the many containers.
_ATTACH_SECONDS = 200.0
_WAIT_SECONDS = 60.0
_PARTS = (
    "calls",
    "chain",
    "standalone",
    "cpu",
    "memory",
    "at-once",
    "allocations",
    "containers",
    "ports",
    "show",
    "pods",
)
_BEGINNING = time.monotonic()


def main() -> None:
    """Measure, or read what was measured; print, and write."""
    arguments = _arguments()
    if arguments.earlier is None:
        enter()
        results = measure(arguments)
        if arguments.release:
            results.about["reference"] = f"release {arguments.release}"
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    else:
        results = msgspec.json.decode(arguments.earlier.read_bytes(), type=Results)
    made = tables(results)
    print("\n\n".join(f"{name}\n\n{table}" for name, table in made.items()))
    for path in arguments.document:
        write_document(path, made)
    if arguments.plots is not None and arguments.only is None:
        draw_all(results, arguments.plots)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--reference", type=Path, default=_DEBIANS, help="the folder of the reference plugins"
    )
    parser.add_argument(
        "--only", choices=_PARTS, action="append", help="a part, for a closer look; no charts"
    )
    parser.add_argument("--serve", default="", metavar="OPTIONS", help="options for cni-py serve")
    parser.add_argument(
        "--release", default="", help="the reference's release, where its executable does not tell"
    )
    parser.add_argument("--quick", action="store_true", help="fewer runs and sizes: three minutes")
    parser.add_argument(
        "--json", type=Path, default=Path("build/bench.json"), help="where to write the values"
    )
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="where to write the charts")
    parser.add_argument(
        "--document",
        type=Path,
        action="append",
        default=[],
        help="a file to put the tables into; may be given again",
    )
    parser.add_argument(
        "--from",
        dest="earlier",
        type=Path,
        metavar="JSON",
        help="measure nothing: use the values of an earlier run",
    )
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> Results:
    """Everything, in some nine minutes, `quick` in three; or the parts that `only` names."""
    _say("waiting until the machine is quiet")
    if not wait_until_quiet(_WAIT_SECONDS):
        _say("it is not: expect other figures than on an idle machine")
    server = Server(arguments.serve.split())
    # End it with this process, whatever that ends by.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        parts = arguments.only or _PARTS
        results = _measured(server, arguments.reference, parts, arguments.quick)
        if "show" in parts:
            own = Suite("cni-py", OURS, own_netns())
            results.show = show.looking(own, 100 if arguments.quick else 1000, 5, _say)
    finally:
        server.stop()
    if "pods" in parts:
        # Their nodes have servers of their own.
        turns = {1: 5, 10: 1} if arguments.quick else {1: 20, 50: 2}
        serve = arguments.serve.split()
        results.pods = pods.starts(arguments.reference, turns, serve, _say)
    return results


def _measured(
    server: Server,
    reference_folder: Path,
    parts: Sequence[str],
    quick: bool,  # noqa: FBT001 - handed through
) -> Results:
    own = own_netns()
    warm = Suite("cni-py", OURS, own)
    alone = Suite("cni-py-standalone", OURS, own, (("CNI_PY_SOCKET", ""),))
    reference = Suite("reference", reference_folder, add_host("reference-host"))
    pair = (warm, reference)
    runs = 9 if quick else 41
    counts = (1, 8, 64) if quick else (1, 2, 4, 8, 16, 32, 64, 128)
    box = Sandboxes(counts[-1])
    results = Results(about=_about(reference_folder, runs))
    results.about["floor"] = single.floor(_NOTHING, runs)
    idle = Row("server and four waiting workers (PSS)", [server.memory_mib()], unit="MiB")
    idle.budget = 80

    if "calls" in parts:
        _say("single calls, warm")
        knows_status = _knows_status(reference_folder)
        results.calls = single.warm_calls(pair, box, runs, status=knows_status)
        results.steps = single.steps(server, results.calls)
    if "chain" in parts:
        _say("a chain of plugins, warm")
        results.chain = chain.calls(pair, box, runs)
    if "standalone" in parts:
        _say("single calls, standalone")
        results.standalone = single.standalone_calls((alone, reference), box, runs)
    if "cpu" in parts:
        _say("CPU time")
        results.cpu = single.processor_time(pair, server, box, blocks=3 if quick else 9)
    if "memory" in parts:
        _say("memory")
        peaks = single.private_memory(warm, alone, reference, server, box, runs // 2)
        results.memory = [idle, *peaks, growth.memory_after(warm, server, box, counts[-1])]
    if "at-once" in parts:
        results.at_once = growth.at_once(pair, box, counts, 3 if quick else 5, _say)
    if "allocations" in parts:
        pools = (0, 1000, 10_000) if quick else (0, 1000, 10_000, 60_000)
        results.allocations = growth.allocations(pair, pools, runs // 2 + 1, _say)
    if "containers" in parts:
        crowds = (1, 100) if quick else (1, 100, 1000)
        turns = max(runs // 4, 5)
        results.containers = growth.containers(pair, box, crowds, turns, _ATTACH_SECONDS, _say)
    if "ports" in parts:
        count = 200 if quick else 1000
        results.ports = ports.connections(
            pair, box, count, max(runs // 4, 5), _ATTACH_SECONDS, _say
        )
    return results


def _about(reference_folder: Path, runs: int) -> dict[str, object]:
    plugin = [reference_folder / "bridge"]
    said = subprocess.run(plugin, env={}, capture_output=True, text=True, check=False).stderr
    iptables = subprocess.run(
        ["iptables", "--version"], capture_output=True, text=True, check=False
    ).stdout
    virtual = " hypervisor " in Path("/proc/cpuinfo").read_text()
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "reference": said.splitlines()[0] if said else "of unknown version",
        "iptables": iptables.strip(),
        "machine": "virtual machine" if virtual else "machine",
        "kernel": ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "runs": runs,
    }


def _knows_status(reference_folder: Path) -> bool:
    """STATUS came with protocol 1.1.0."""
    asked = subprocess.run(
        [reference_folder / "bridge"],
        env={"CNI_COMMAND": "VERSION"},
        input=b"{}",
        capture_output=True,
        check=True,
    )
    return "1.1.0" in json.loads(asked.stdout)["supportedVersions"]


def _say(text: str) -> None:
    """Progress, with the seconds since the beginning."""
    print(f"bench: {time.monotonic() - _BEGINNING:4.0f} s: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
