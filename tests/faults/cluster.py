"""`make faults-cluster`: what goes wrong in a cluster of three hosts, and how long it lasts.

    PYTHONPATH=tests .venv/bin/python -m faults.cluster --document

Each fault has hosts, agents and an etcd of its own; `--document` writes docs/overlay.md's table.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from pathlib import Path

from fixtures.agents import Cluster
from fixtures.underlay import Underlay

from .cluster_scenarios import SCENARIOS, TTL, Measured

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "overlay.md"
_MARKERS = ("<!-- faults -->", "<!-- /faults -->")
# How long what lasts a while does: etcd's absence, a host's.
_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenario", nargs="*", help="only these")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="how long absences last")
    parser.add_argument("--document", action="store_true", help="write the table to the page")
    options = parser.parse_args()
    chosen = [one for one in SCENARIOS if not options.scenario or one.__name__ in options.scenario]
    rows = []
    lost = 0
    for one in chosen:
        members = 3 if one.__name__ == "new_leader" else 1
        with (
            closing(Underlay.start((1, 1, 1))) as underlay,
            closing(Cluster.start(underlay, size=members)) as cluster,
        ):
            cluster.containers()
            cluster.join(ttl=TTL)
            cluster.settle()
            began = time.monotonic()
            measured = one(cluster, options.seconds)
            lost += measured.lost
            rows.append(row((one.__doc__ or "").strip(), measured))
            print(f"{time.monotonic() - began:6.1f} s  {rows[-1]}", flush=True)
    if options.document:
        document(rows, options.seconds)
    sys.exit(1 if lost else 0)


def row(what: str, measured: Measured) -> str:
    seconds = f"{measured.seconds:.1f} s" if measured.seconds else "at once"
    return f"| {what} | {seconds} | {measured.lost} | {measured.own} |"


def document(rows: list[str], seconds: float) -> None:
    """Put the table between its markers."""
    head = f"""\
Three hosts, a real etcd, leases of {TTL} s, absences of {seconds:.0f} s. Recovered: from the end of
the fault until all agents are ready and packets flow to the host and back. Lost: of a packet a
millisecond between the other two hosts. By `make faults-cluster FAULTS=--document`.

| fault | recovered | lost between others | the host itself |
| --- | --- | --- | --- |
"""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(_MARKERS[0])
    after = rest.partition(_MARKERS[1])[2]
    lines = head + "\n".join(rows)
    DOCUMENT.write_text(f"{before}{_MARKERS[0]}\n\n{lines}\n\n{_MARKERS[1]}{after}")


if __name__ == "__main__":
    main()
