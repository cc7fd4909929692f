"""`make faults-services`: how long something dead is still found, beside what is configured.

    PYTHONPATH=tests .venv/bin/python -m faults.services --document

Two hosts behind a router with an etcd, an agent and a dnsmasq on each. A service ends in each way
that there is, again and again; DNS is asked on its own host and on the other one, and the store for
its record. `--document` writes docs/services.md's table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from services.shop import PORT, Place

from fixtures.agents import EtcdInRouter
from fixtures.resolver import ask
from fixtures.underlay import Underlay, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.shop import Served

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "services.md"
NAME = "web.shop.test"
TTL = 4
INTERVAL, TIMEOUT, FALL = 1.0, 0.5, 2
CHECK = {"type": "http", "path": "/ping", "intervalSeconds": INTERVAL, "timeoutSeconds": TIMEOUT,
         "fall": FALL}  # fmt: skip
# How often etcd looks which leases have ended.
_ETCD_LOOKS = 0.5
BY_CHECKS = INTERVAL * FALL + TIMEOUT
_SECONDS = 60.0
_ROUNDS = 10


@dataclass
class Bench:
    """A service on host 2, and one on each host that stays, in whose containers DNS is asked."""

    underlay: Underlay
    etcd: EtcdInRouter
    here: Served
    there: Served
    tried: Served

    def is_named(self, at: Served) -> bool:
        server = at.result["dns"]["nameservers"][0]
        return self.tried.address in ask(at.container, server, NAME).records

    def is_registered(self) -> bool:
        found = self.etcd.ctl("get", "--prefix", "--print-value-only", "/skydns/", check=False)
        return f'"{self.tried.address}"' in (found or "")

    def places(self) -> dict[str, Callable[[], bool]]:
        """Where it can be found."""
        return {
            "own host's DNS": lambda: self.is_named(self.there),
            "other host's DNS": lambda: self.is_named(self.here),
            "registry": self.is_registered,
        }

    def settle(self) -> None:
        """It is found everywhere."""
        assert eventually(lambda: all(one() for one in self.places().values()), _SECONDS)

    def gone(
        self, end: Callable[[], None], *, without: str = "", afterwards: bool = False
    ) -> dict[str, float]:
        """End it, and the seconds until it is found no more, by place.

        They are counted from the beginning of the end, or from its return with `afterwards`.
        """
        took: dict[str, float] = {}
        began = time.monotonic()

        def watch(place: str, found: Callable[[], bool]) -> None:
            while found() and time.monotonic() - began < _SECONDS:
                time.sleep(0.005)
            took[place] = time.monotonic() - began

        watching = [
            threading.Thread(target=watch, args=one)
            for one in self.places().items()
            if one[0] != without
        ]
        for thread in watching:
            thread.start()
        end()
        late = time.monotonic() - began if afterwards else 0.0
        for thread in watching:
            thread.join()
        return {place: max(seconds - late, 0.0) for place, seconds in took.items()}


def killed(bench: Bench) -> dict[str, float]:
    """the server is killed"""
    took = bench.gone(bench.tried.stop)
    bench.tried.start()
    return took


def hangs(bench: Bench) -> dict[str, float]:
    """the server hangs: it accepts and says nothing"""
    took = bench.gone(lambda: bench.tried.hang(on=True))
    bench.tried.hang(on=False)
    return took


def cut(bench: Bench) -> dict[str, float]:
    """the host is cut off"""
    member = bench.underlay.members[2]
    # On the host itself nothing has happened.
    took = bench.gone(lambda: member.set_cable(up=False), without="own host's DNS")
    member.set_cable(up=True)
    return took


# What ends a service, and the seconds that it may be found for.
WAYS: dict[str, tuple[Callable[[Bench], dict[str, float]], float]] = {
    "killed": (killed, BY_CHECKS),
    "hangs": (hangs, BY_CHECKS),
    "cut": (cut, TTL + _ETCD_LOOKS),
}


def deleted(bench: Bench, place: Place, number: int) -> dict[str, float]:
    """the container is deleted"""
    bench.tried = place.serve(f"gone{number}", {"name": "web", "port": PORT, "check": CHECK})
    bench.settle()
    return bench.gone(bench.tried.delete, afterwards=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("way", nargs="*", help="only these: killed, hangs, deleted, cut")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="how often each")
    parser.add_argument("--document", action="store_true", help="write the table to the page")
    options = parser.parse_args()
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="cni-services-")))
        underlay = stack.enter_context(closing(Underlay.start((1, 2))))
        etcd = stack.enter_context(closing(EtcdInRouter(underlay.router)))
        etcd.start()
        agent = (f"--etcd-endpoints={etcd.endpoints}", f"--services-ttl={TTL}")
        one, two = (
            stack.enter_context(
                closing(Place(underlay.members[number].host, folder, agent,
                              f"10.77.{number}.0/24", dns=True))
            )
            for number in underlay.members
        )  # fmt: skip
        web = {"name": "web", "port": PORT, "check": CHECK}
        bench = Bench(
            underlay, etcd, one.start().serve("here", web), two.start().serve("there", web),
            two.serve("tried", web),
        )  # fmt: skip
        for name, (way, bound) in WAYS.items():
            if not options.way or name in options.way:
                took = []
                for _ in range(options.rounds):
                    bench.settle()
                    took.append(way(bench))
                rows.append(row((way.__doc__ or "").strip(), bound, took))
        if not options.way or "deleted" in options.way:
            took = [deleted(bench, two, number) for number in range(options.rounds)]
            rows.append(row((deleted.__doc__ or "").strip(), 0.0, took))
    if options.document:
        document(rows, options.rounds)


def row(what: str, bound: float, took: list[dict[str, float]]) -> tuple[str, ...]:
    """A row of the table: the middle and the longest of each place."""
    cells = [what, f"{bound:.1f} s" if bound else "at once"]
    for place in ("own host's DNS", "other host's DNS", "registry"):
        seconds = [one[place] for one in took if place in one]
        middle = f"{statistics.median(seconds):.2f} s" if seconds else ""
        cells.append(f"{middle}, {max(seconds):.2f} s" if seconds else "stays")
    print(" | ".join(cells), flush=True)
    return tuple(cells)


def document(rows: list[tuple[str, ...]], rounds: int) -> None:
    """Put the table between its marks; `bench/` has what writes tables."""
    sys.path.append(str(ROOT / "bench"))
    from tables import table, write_document

    text = f"""\
Checks by HTTP every {INTERVAL:g} s, with a timeout of {TIMEOUT:g} s and `fall` {FALL}; entries
that last for {TTL} s, and an etcd that looks for what has ended twice a second; a dnsmasq on each
of two hosts. Each is the median and the longest of {rounds} times, from the end, or from the
return of DEL, until it is found no more. By `make faults-services FAULTS=--document`.

"""
    head = ("what ends", "bound", "its own host's DNS", "the other host's DNS", "the registry")
    write_document(DOCUMENT, {"removal": text + table(head, rows)})


if __name__ == "__main__":
    main()
