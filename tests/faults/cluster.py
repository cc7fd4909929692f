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

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "overlay.md"
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
            print(f"{time.monotonic() - began:6.1f} s  {' | '.join(rows[-1])}", flush=True)
    if options.document:
        document(rows, options.seconds)
    sys.exit(1 if lost else 0)


def row(what: str, measured: Measured) -> tuple[str, ...]:
    seconds = f"{measured.seconds:.1f} s" if measured.seconds else "at once"
    return what, seconds, str(measured.lost), measured.own


def document(rows: list[tuple[str, ...]], seconds: float) -> None:
    """Put the table between its marks; `bench/` has what writes tables."""
    sys.path.append(str(ROOT / "bench"))
    from tables import table, write_document

    text = f"""\
Three hosts, a real etcd, leases of {TTL} s, absences of {seconds:.0f} s. Recovered: from the end of
the fault until all agents are ready and packets flow to the host and back. Lost: of a packet a
millisecond between the other two hosts. By `make faults-cluster FAULTS=--document`.

"""
    head = ("fault", "recovered", "lost between others", "the host itself")
    write_document(DOCUMENT, {"faults": text + table(head, rows)})


if __name__ == "__main__":
    main()
