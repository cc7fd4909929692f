"""`make faults`: SIGKILL, or an error, at every moment of ADD, DEL and GC of every plugin.

Each trial has a container of its own. The chain is attached as far as the struck plugin; the call
is struck at one moment; then what a runtime does next, or GC alone, must bring the host back to how
it was before.

    PYTHONPATH=tests .venv/bin/python -m faults.kills --sample 20 --served warm
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures.dump import dump, left_behind
from fixtures.host import BIN, Container, Host
from fixtures.moments import SIGKILL, Moment, Strike, record, struck

from .scenarios import SCENARIOS, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fixtures.calls import Outcome

ROOT = Path(__file__).resolve().parents[2]
VERBS = ("ADD", "DEL", "GC")
# What fails in which kind of system call, as its manual page or the kernel says.
ERRORS = {"file": ("ENOSPC", "EIO"), "netlink": ("ENOBUFS", "EPERM", "EBUSY")}
_LEAVES = 10
_SETTLING_SECONDS = 10


@dataclass(frozen=True)
class Options:
    """`sample` moments a call at most, 0 for all; `every` for each system call, also pure ones."""

    served: str = "standalone"
    folder: str = str(BIN)
    sample: int = 0
    every: bool = False
    faults: tuple[str, ...] = (SIGKILL,)

    @property
    def is_ours(self) -> bool:
        return self.folder == str(BIN)


@dataclass
class Tally:
    """What was tried and what came of it."""

    tried: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.tried += other.tried
        self.hit += other.hit
        self.left += other.left
        self.notes += other.notes

    def judge(self, kind: str, notes: list[str]) -> None:
        """One trial, and what was wrong with it."""
        self.left[kind] += bool(notes)
        self.notes += notes


class Trials:
    """The trials of one scenario on one host."""

    def __init__(self, host: Host, scenario: Scenario, options: Options) -> None:
        self.host = host
        self.scenario = scenario
        self.options = options
        self.tally = Tally()
        self._number = 0
        self._before: dict[str, list[str]] = {}
        self._results: list[Any] = []
        self._stack = ExitStack()

    # The whole.

    def run(self, verbs: Iterable[str] = VERBS) -> Tally:
        """Strike each verb of the target at its moments, in turn with each way to clean up."""
        self._prepare()
        for verb in verbs:
            moments = self._moments(verb)
            for fault in self.options.faults:
                fitting = [one for one in moments if fault == SIGKILL or _fits(fault, one)]
                for index, moment in enumerate(_sampled(fitting, self.options.sample)):
                    ways = self._ways(verb, fault)
                    self._try(verb, moment, fault, ways[index % len(ways)])
        return self.tally

    def close(self) -> None:
        """End the host, and what was started for it."""
        self._stack.close()
        self.host.close()

    def _prepare(self) -> None:
        self.scenario.prepare(self.host, self._stack)
        self._settle_down()

    def _settle_down(self) -> None:
        """What stays by design is there before: bridges, tables, folders."""
        container = self._container()
        self._attach(container, len(self.scenario.chain))
        self._detach(container, len(self.scenario.chain))
        self._dismiss(container)
        deadline = time.monotonic() + _SETTLING_SECONDS
        while True:
            self._before = dump(self.host)
            if not any("tentative" in one for one in self._before["addresses"]):
                return
            assert time.monotonic() < deadline, self._before["addresses"]

    def _moments(self, verb: str) -> list[Moment]:
        container = self._container()
        self._set_up(container, verb)
        outcome, moments = record(
            self.host, self._strike(verb, container), every=self.options.every
        )
        assert outcome.status == 0, (self.scenario.name, verb, outcome)
        if verb == "ADD":
            self._results.append(outcome.json)
        # The reference has some DELs that fail where there is nothing left.
        with suppress(*(() if self.options.is_ours else (AssertionError,))):
            self._detach(container, len(self.scenario.chain))
        self._dismiss(container)
        return moments

    def _ways(self, verb: str, fault: str) -> tuple[str, ...]:
        if not self.options.is_ours:
            return ("DEL",)
        if fault != SIGKILL and verb == "ADD":
            return ("nothing",)
        if not self.scenario.outlives:
            return ("DEL", "GC")
        ways = ("DEL", "GC", "namespace gone, DEL")
        return (*ways, "namespace gone, GC without a list") if self.scenario.tells else ways

    # One trial.

    def _try(self, verb: str, moment: Moment, fault: str, way: str) -> None:
        container = self._container()
        self._set_up(container, verb)
        outcome, came = struck(self.host, self._strike(verb, container), moment, fault)
        name = f"{verb} {fault.partition('=')[2]}"
        self.tally.tried[name] += 1
        self.tally.hit[name] += came
        what = f"{self.scenario.name}: {verb} with {fault} at {moment.name} {moment.number}"
        notes = []
        if fault != SIGKILL and not _is_answer(outcome):
            notes.append(f"{what}: {outcome}")
        try:
            self._clean_up(container, verb, way, outcome)
        except AssertionError as error:
            notes.append(f"{what}, then {way}: {error}")
        self._dismiss(container)
        found = self._left()
        if found:
            shown = "\n    ".join(found[:_LEAVES])
            notes.append(f"{what}, then {way}, left\n    {shown}")
            self._start_anew()
        self.tally.judge(name, notes)

    def _clean_up(self, container: Container, verb: str, way: str, outcome: Outcome) -> None:
        count = len(self.scenario.chain)
        if way.startswith("namespace gone"):
            self._dismiss(container)
            self._wait_for_links()
        if way == "nothing":
            # A failed ADD has undone itself: only the plugins before it are left.
            count = self.scenario.target if outcome.status else self.scenario.target + 1
            self._detach(container, count)
        elif way.endswith("DEL"):
            if verb == "ADD":
                # The runtime has no result of a list that was not attached as a whole.
                self._results = []
            self._detach(container, count)
        else:
            valid: Any = None if way.endswith("without a list") else []
            for config in self.scenario.configs:
                extra = {} if valid is None else {"cni.dev/valid-attachments": valid}
                self._call("GC", config | extra, None)

    def _wait_for_links(self) -> None:
        """A namespace goes some time after its last name, and the host end with it."""
        deadline = time.monotonic() + _SETTLING_SECONDS
        while self._pairs(dump(self.host)) > self._pairs(self._before):
            assert time.monotonic() < deadline

    def _pairs(self, dumped: dict[str, list[str]]) -> int:
        return sum('"veth"' in one for one in dumped["links"])

    def _left(self) -> list[str]:
        """The kernel takes links away a moment after their call has ended."""
        deadline = time.monotonic() + _SETTLING_SECONDS
        while True:
            found = left_behind(self.host, self._before)
            if not found or time.monotonic() > deadline or not self.options.is_ours:
                return found

    def _start_anew(self) -> None:
        """A host that is not as it was would have each later trial fail too."""
        served = self.host.server is not None
        self.close()
        self.host = _started(self.options if served else Options())
        self._prepare()

    # As a runtime.

    def _container(self) -> Container:
        self._number += 1
        container = self.host.container(f"k{self._number}")
        self.scenario.furnish(container)
        return container

    def _dismiss(self, container: Container) -> None:
        with suppress(AssertionError):
            container.delete_netns()
        if not self.scenario.outlives:
            self.host.run("ip", "link", "delete", "nic0", check=False)

    def _set_up(self, container: Container, verb: str) -> None:
        """As far as the struck call."""
        count = len(self.scenario.chain)
        target = self.scenario.target
        self._results = []
        self._attach(container, target if verb == "ADD" else count)
        if verb == "DEL":
            self._detach(container, count, downto=target + 1)

    def _strike(self, verb: str, container: Container) -> Strike:
        config = self.scenario.configs[self.scenario.target]
        if verb == "GC":
            gc = config | {"cni.dev/valid-attachments": []}
            return Strike(self.scenario.plugin, verb, gc, None, folder=self.options.folder)
        config = self._with_result(config)
        return Strike(self.scenario.plugin, verb, config, container, folder=self.options.folder)

    def _attach(self, container: Container, count: int) -> None:
        for config in self.scenario.configs[:count]:
            outcome = self._call("ADD", self._with_result(config), container)
            self._results.append(outcome.json)

    def _detach(self, container: Container, count: int, downto: int = 0) -> None:
        for config in reversed(self.scenario.configs[downto:count]):
            self._call("DEL", self._with_result(config), container)

    def _with_result(self, config: dict[str, Any]) -> dict[str, Any]:
        return config | ({"prevResult": self._results[-1]} if self._results else {})

    def _call(self, verb: str, config: dict[str, Any], container: Container | None) -> Outcome:
        strike = Strike(config["type"], verb, config, container, folder=self.options.folder)
        environ = strike.environ
        if self.host.server is None:
            environ["CNI_PY_SOCKET"] = ""
        path = f"{self.options.folder}/{strike.plugin}"
        outcome = self.host.run(path, stdin=json.dumps(config), env=environ, check=False)
        assert outcome.status == 0, f"{strike.plugin} {verb}: {outcome}"
        return outcome


def _is_answer(outcome: Outcome) -> bool:
    """Whether a call that met an error of the system has answered with one of the protocol."""
    if outcome.status == 0:
        return True
    try:
        error = json.loads(outcome.stdout)
    except ValueError:
        return False
    return error.get("code") in (5, 11, 999) and "Traceback" not in outcome.stderr


def _fits(fault: str, moment: Moment) -> bool:
    return fault.partition("=")[2] in ERRORS.get(moment.kind, ())


def _sampled(moments: list[Moment], most: int) -> list[Moment]:
    """At most so many, evenly over the call."""
    if not most or len(moments) <= most:
        return moments
    return [moments[index * len(moments) // most] for index in range(most)]


def _started(options: Options) -> Host:
    host = Host.start()
    if options.served == "warm" and options.is_ours:
        host.serve("--idle-workers", "1", "--calls-per-worker", "1")
    return host


def trials(scenario: Scenario, options: Options, verbs: Iterable[str] = VERBS) -> Tally:
    """All trials of a scenario, on a host of its own."""
    one = Trials(_started(options), scenario, options)
    try:
        return one.run(verbs)
    finally:
        one.close()


def every_scenario(
    options: Options, chosen: Iterable[Scenario], told: Callable[[str], None]
) -> Tally:
    """The trials of all scenarios, some at once."""
    whole = Tally()
    lock = threading.Lock()

    def tried(scenario: Scenario) -> None:
        began = time.monotonic()
        verbs = VERBS if options.is_ours else VERBS[:2]
        tally = trials(scenario, options, verbs)
        with lock:
            whole.add(tally)
        took = time.monotonic() - began
        told(
            f"{scenario.name}: tried {sum(tally.tried.values())}, hit {sum(tally.hit.values())}, "
            f"left {sum(tally.left.values())}, {took:.0f} s"
        )
        for note in tally.notes:
            told(f"  {note}")

    fitting = [one for one in chosen if options.is_ours or one.theirs]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for future in [pool.submit(tried, one) for one in fitting]:
            future.result()
    return whole


def main() -> int:
    """Ours in one mode or both, and the reference where asked; print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--served", choices=("standalone", "warm", "both"), default="both")
    parser.add_argument("--sample", type=int, default=0, help="moments a call at most; 0 for all")
    parser.add_argument("--every", action="store_true", help="also where nothing changes outside")
    parser.add_argument("--errors", action="store_true", help="errors instead of SIGKILL")
    parser.add_argument("--scenario", action="append", help="those whose name begins so")
    parser.add_argument("--stock", action="store_true", help="those for Debian's kernel instead")
    parser.add_argument("--reference", help="the same with the executables of this folder")
    parser.add_argument("--document", type=Path, help="write the table into this file")
    given = parser.parse_args()
    numbers = sorted({one for kind in ERRORS.values() for one in kind})
    faults = tuple(f"error={one}" for one in numbers) if given.errors else (SIGKILL,)
    base = Options("standalone", str(BIN), given.sample, given.every, faults)
    modes = ("standalone", "warm") if given.served == "both" else (given.served,)
    runs = [(f"cni-py, {mode}", Options(**{**vars(base), "served": mode})) for mode in modes]
    if given.reference:
        runs.append(("reference", Options(**{**vars(base), "folder": given.reference})))
    chosen = [
        one
        for one in SCENARIOS
        if one.stock == given.stock
        if not given.scenario or any(one.name.startswith(name) for name in given.scenario)
    ]
    columns, bad = [], False
    for name, options in runs:
        print(f"{name}:", flush=True)
        whole = every_scenario(options, chosen, lambda line: print(f"  {line}", flush=True))
        columns.append((name, whole))
        print(f"  together: tried {dict(whole.tried)}, left {dict(whole.left)}", flush=True)
        bad = bad or (options.is_ours and bool(whole.left))
    if given.document:
        _write(given.document, given, columns)
    return int(bad)


def _shown(tally: Tally, name: str = "") -> str:
    tried = tally.tried[name] if name else tally.tried.total()
    left = tally.left[name] if name else tally.left.total()
    return f"{tried:,}, {left:,}" if tried else "-"


def _write(path: Path, given: argparse.Namespace, columns: list[tuple[str, Tally]]) -> None:
    sys.path.insert(0, str(ROOT / "bench"))
    from tables import table, write_document

    names = sorted({name for _, tally in columns for name in tally.tried})
    lines = [
        (f"{name}: tried, of these not as before", *(_shown(tally, name) for _, tally in columns))
        for name in names
    ]
    lines.append(("together", *(_shown(tally) for _, tally in columns)))
    mark = "errors" if given.errors else "kills"
    most = f"at most {given.sample} moments a call" if given.sample else "every moment"
    options = f"--served {given.served} --sample {given.sample}" + " --errors" * given.errors
    options += " --reference FOLDER" * bool(given.reference)
    text = (
        f"{sum(not one.stock for one in SCENARIOS)} scenarios, {most}. Written by\n"
        f"`make faults FAULTS='{options} --document docs/reliability.md'`.\n\n"
        + table(("", *(name for name, _ in columns)), lines)
    )
    write_document(path, {mark: text})


if __name__ == "__main__":
    sys.exit(main())
