"""What was measured, as values: a row has ours beside the reference's, run by run."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Row:
    """One work, measured in turn: `ours[i]` and `reference[i]` belong together.

    `reference` is empty where the reference cannot do it. At most one budget is set: of the ratio
    or of our median.
    """

    work: str
    ours: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    ratio_budget: float | None = None
    budget: float | None = None
    unit: str = "ms"
    # Where the work grows: how much of it, and how much the reference got to in its time.
    count: int = 0
    reference_count: int = 0

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios, ours to the reference's."""
        return statistics.median(a / b for a, b in zip(self.ours, self.reference, strict=True))

    def verdict(self) -> Verdict | None:
        """How it stands to its budget."""
        if self.ratio_budget is not None and self.reference:
            return Verdict(self.work, self.ratio, self.ratio_budget, "")
        if self.budget is not None:
            return Verdict(self.work, statistics.median(self.ours), self.budget, self.unit)
        return None


@dataclass
class Verdict:
    """A figure and what it may be at most; `unit` is empty for a ratio."""

    work: str
    measured: float
    limit: float
    unit: str

    @property
    def text(self) -> str:
        """The table's cell."""
        word = "ok" if self.measured <= self.limit else "**missed**"
        return f"{self.limit:g}{self.unit and ' ' + self.unit}: {word}"


@dataclass
class Starts:
    """What RunPodSandbox took, in milliseconds, of pods that start together on one node."""

    suite: str
    at_once: int
    milliseconds: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """The time that this share of the pods had at most."""
        ordered = sorted(self.milliseconds)
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass
class Results:
    """Everything one run has measured."""

    about: dict[str, Any] = field(default_factory=dict)
    calls: list[Row] = field(default_factory=list)
    chain: list[Row] = field(default_factory=list)
    standalone: list[Row] = field(default_factory=list)
    cpu: list[Row] = field(default_factory=list)
    memory: list[Row] = field(default_factory=list)
    at_once: list[Row] = field(default_factory=list)
    # ADD and DEL by turns, one pair a count.
    allocations: list[Row] = field(default_factory=list)
    containers: list[Row] = field(default_factory=list)
    ports: list[Row] = field(default_factory=list)
    show: list[Row] = field(default_factory=list)
    pods: list[Starts] = field(default_factory=list)
    # Ours alone: milliseconds by column, then by step, in order.
    steps: dict[str, dict[str, float]] = field(default_factory=dict)

    def verdicts(self) -> list[Verdict]:
        """Each budget that there is a figure for."""
        rows = (
            *self.calls,
            *self.chain,
            *self.at_once,
            *self.cpu,
            *self.standalone,
            *self.memory,
            *self.ports,
            *self.show,
        )
        found = [verdict for row in rows if (verdict := row.verdict()) is not None]
        growth = self.growth()
        return [*found, growth] if growth else found

    def growth(self) -> Verdict | None:
        """ADD in the fullest pool beside ADD in an empty one, ours to ours."""
        adds = [row for row in self.allocations if row.work == "ADD"]
        if not adds:
            return None
        first, last = adds[0], adds[-1]
        ratio = statistics.median(a / b for a, b in zip(last.ours, first.ours, strict=True))
        work = f"host-local ADD with {last.count:,} allocated, to ADD with none"
        return Verdict(work, ratio, 1.2, "")
