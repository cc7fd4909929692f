"""Standalone calls beside the reference plugins: `make bench`, or this script as root.

    python bench/standalone.py [--reference FOLDER] [--runs N]

Ours and the reference's run in turn on the same work in one run, in a network namespace and with
state folders of their own; a row has the medians of whole-process wall time, as a runtime sees it,
and the ratio ours / reference pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "bin"
DEBIANS = Path("/usr/lib/cni")
_INSIDE = "CNI_PY_BENCH_INSIDE"

BRIDGE: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "bench",
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.85.0.0/16"}]]},
}
WORK: dict[str, tuple[str, dict[str, Any]]] = {
    "bridge + host-local": ("bridge", BRIDGE),
    "the same with ipMasq": ("bridge", BRIDGE | {"name": "masq", "ipMasq": True}),
    "host-local alone": ("host-local", BRIDGE | {"name": "ipam"}),
    "loopback": ("loopback", {"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}),
}


@dataclass
class Times:
    """Milliseconds of each run, ours and the reference's."""

    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    def row(self, work: str) -> str:
        """One line of the table."""
        ratios = [ours / other for ours, other in zip(self.ours, self.reference, strict=True)]
        spread = f"{min(self.ours):.0f} / {statistics.median(self.ours):.0f} / {max(self.ours):.0f}"
        other = (
            f"{min(self.reference):.0f} / {statistics.median(self.reference):.0f} / "
            f"{max(self.reference):.0f}"
        )
        return f"| {work} | {spread} | {other} | {statistics.median(ratios):.1f} |"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, default=DEBIANS)
    parser.add_argument("--runs", type=int, default=21)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: network namespaces need root")
    if _INSIDE not in os.environ:
        enter = ["unshare", "--net", "--mount", "--propagation", "private", sys.executable]
        os.execvpe(enter[0], [*enter, *sys.argv], {**os.environ, _INSIDE: "1"})
    prepare()
    print(f"reference: {arguments.reference} ({about(arguments.reference)})")
    print(f"{arguments.runs} runs of each in turn; milliseconds, min / median / max\n")
    print("| work | cni-py, standalone | reference | ratio |\n| --- | --- | --- | --- |")
    for row in rows(arguments.reference, arguments.runs):
        print(row, flush=True)


def prepare() -> None:
    """Empty state folders, and a loopback interface that is up."""
    for folder in ("/run", "/var/lib/cni"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-n", "-t", "tmpfs", "none", folder], check=True)
    Path("/run/netns").mkdir()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def about(folder: Path) -> str:
    """What the reference's executable says of its version."""
    done = subprocess.run([folder / "bridge"], capture_output=True, text=True, env={}, check=False)
    return done.stderr.splitlines()[0] if done.stderr else "unknown version"


def rows(reference: Path, runs: int) -> Iterator[str]:
    """The table's rows, each as soon as it is measured."""
    versions = Times()
    for _ in range(runs + 1):
        for times, folder in ((versions.ours, OURS), (versions.reference, reference)):
            times.append(timed(folder, "bridge", "VERSION", {}, ""))
    yield warm(versions).row("VERSION")
    for work, (plugin, config) in WORK.items():
        add, delete = Times(), Times()
        for index in range(runs + 1):
            for name in ("ours", "reference"):
                folder = OURS if name == "ours" else reference
                mine = config | {"name": f"{config['name']}-{name}", "bridge": f"br-{name}"}
                container = f"{name}{index}"
                subprocess.run(["ip", "netns", "add", container], check=True)
                getattr(add, name).append(timed(folder, plugin, "ADD", mine, container))
                getattr(delete, name).append(timed(folder, plugin, "DEL", mine, container))
                subprocess.run(["ip", "netns", "delete", container], check=True)
        yield warm(add).row(f"{work}: ADD")
        yield warm(delete).row(f"{work}: DEL")


def warm(times: Times) -> Times:
    """Without the first run, which loads files and makes the bridge."""
    return Times(times.ours[1:], times.reference[1:])


def timed(folder: Path, plugin: str, verb: str, config: dict[str, Any], container: str) -> float:
    """Wall milliseconds of one call; ends the run if the call fails."""
    environ = {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": verb,
        "CNI_PATH": str(folder),
        "CNI_CONTAINERID": container,
        "CNI_NETNS": f"/run/netns/{container}",
        "CNI_IFNAME": "eth0",
    }
    data = json.dumps(config).encode()
    start = time.perf_counter()
    done = subprocess.run(
        [folder / plugin], input=data, env=environ, capture_output=True, check=False
    )
    elapsed = (time.perf_counter() - start) * 1000
    if done.returncode != 0:
        sys.exit(f"bench: {folder / plugin} {verb} failed: {done.stdout.decode()}")
    return elapsed


if __name__ == "__main__":
    main()
