"""The results as Markdown tables, and putting them into documents."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rows import Results, Row, Starts


def tables(results: Results) -> dict[str, str]:
    """Each table that there is, by the name that its marks in a document have."""
    made = {"about": _about(results), "budgets": _budgets(results)}
    if results.calls:
        made["calls"] = comparison(results.calls)
        made["steps"] = _steps(results)
    if results.chain:
        made["chain"] = comparison(results.chain)
    for name, (rows, digits) in {
        "cpu": (results.cpu, 1),
        "memory": (results.memory, 1),
        "at-once": (results.at_once, 0),
        "ports": (results.ports, 3),
        "show": (results.show, 0),
    }.items():
        if rows:
            made[name] = comparison(rows, digits=digits)
    if results.standalone:
        made["standalone"] = comparison(results.standalone, ours="cni-py, standalone", digits=0)
    if results.allocations:
        made["allocations"] = _growth(results.allocations, "addresses allocated")
    if results.containers:
        made["containers"] = _growth(results.containers, "containers")
    if results.pods:
        made["pods"] = _pods(results.pods)
    return made


def write_document(path: Path, made: dict[str, str]) -> None:
    """Replace what is between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`."""
    text = path.read_text()
    for name, table in made.items():
        marks = (f"(<!-- bench:{name} -->\n)", f"(<!-- /bench:{name} -->)")
        new = rf"\g<1>{table}\n\g<2>"
        text = re.sub(".*?".join(marks), new, text, flags=re.DOTALL)
    path.write_text(text)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Minimum, median, maximum; one value as it is, a dash for none."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if values else "-"
    three = (min(values), statistics.median(values), max(values))
    return " / ".join(f"{one:.{digits}f}" for one in three)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def comparison(rows: list[Row], ours: str = "cni-py", digits: int = 1) -> str:
    """Markdown of ours beside the reference's, with the budgets where there are any."""
    head = [rows[0].unit, ours, "reference", "ratio"]
    with_budget = any(row.verdict() for row in rows)
    lines = []
    for row in rows:
        ratio = f"{row.ratio:.2f}" if row.reference else "-"
        line = [row.work, spread(row.ours, digits), spread(row.reference, digits), ratio]
        verdict = row.verdict()
        lines.append([*line, verdict.text if verdict else ""] if with_budget else line)
    return table([*head, "budget"] if with_budget else head, lines)


def _pods(starts: list[Starts]) -> str:
    """A line for each number of pods at once: median and 99th percentile of each suite."""
    suites = list(dict.fromkeys(one.suite for one in starts))
    lines = []
    for count in dict.fromkeys(one.at_once for one in starts):
        row = [one for one in starts if one.at_once == count]
        cells = [f"{one.quantile(0.5):.0f} / {one.quantile(0.99):.0f}" for one in row]
        lines.append([f"{count} at once", *cells])
    return table(("ms, p50 / p99", *suites), lines)


def _budgets(results: Results) -> str:
    return table(
        ("work", "measured", "budget"),
        (
            (one.work, f"{one.measured:.3g}{one.unit and ' ' + one.unit}", one.text)
            for one in results.verdicts()
        ),
    )


def _growth(rows: list[Row], what: str) -> str:
    head = (
        what,
        "cni-py: ADD",
        "cni-py: DEL",
        "reference: ADD",
        "reference: DEL",
        "ratio ADD, DEL",
    )
    lines = []
    for add, delete in zip(rows[::2], rows[1::2], strict=True):
        count = f"{add.count:,}"
        if add.reference_count != add.count:
            count += f" (reference: {add.reference_count:,})"
        ratios = (
            statistics.median(one.ours) / statistics.median(one.reference) for one in (add, delete)
        )
        lines.append(
            (
                count,
                spread(add.ours),
                spread(delete.ours),
                spread(add.reference),
                spread(delete.reference),
                ", ".join(f"{ratio:.2g}" for ratio in ratios),
            )
        )
    return table(head, lines)


def _steps(results: Results) -> str:
    names = dict.fromkeys(name for column in results.steps.values() for name in column)
    # What only one verb does comes before what ends every call.
    last = list(next(iter(results.steps.values())))[-3:]
    ordered = [*(name for name in names if name not in last), *last]
    return table(
        ("ms", *results.steps),
        (
            (
                name,
                *(
                    f"{column[name]:.2f}" if name in column else ""
                    for column in results.steps.values()
                ),
            )
            for name in ordered
        ),
    )


def _about(results: Results) -> str:
    about = results.about
    return (
        f"{about['date']}: {about['machine']}, {about['processors']} cores, Linux "
        f"{about['kernel']}, Python {about['python']}; reference: {about['reference']}; "
        f"{about['iptables']}. {about['runs']} runs of each single call. A process that does "
        f"nothing (`/bin/true`) takes {spread(about['floor'])} ms."
    )
