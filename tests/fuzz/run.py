"""Fuzz every target for a bounded time: `make fuzz`, FUZZ_SECONDS each.

    python -m fuzz.run [--seconds N] [--document] [TARGET...]

Prints executions, coverage and findings; exits with 1 after a finding, whose input it keeps. The
corpus stays in `.cache/fuzz` and is where the next run goes on.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from hashlib import sha256
from typing import NamedTuple

import msgspec

from . import launcher
from . import target as shared

CACHE = shared.ROOT / ".cache" / "fuzz"
DOCUMENT = shared.ROOT / "docs" / "reliability.md"

# Of one input. The slowest seed takes a tenth of a second, instrumented.
_INPUT_SECONDS = 10
_MEMORY_MIB = 2048
_LARGEST_BYTES = 1 << 16
_SLACK_SECONDS = 120
_STATUS = re.compile(rb"#(\d+)\s.*?cov: (\d+) ft: (\d+)")
_RUNS = re.compile(rb"stat::number_of_executed_units: (\d+)")


class Outcome(NamedTuple):
    """What one target's run came to."""

    target: str
    seconds: float
    executions: int
    coverage: int
    corpus: int
    findings: tuple[str, ...]


def main() -> int:
    """Run the targets one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    parser.add_argument("--launcher-seconds", type=int, help="for the launcher (default: the same)")
    parser.add_argument(
        "--document",
        action="store_true",
        help="write each target's last run into docs/reliability.md",
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    asked = parser.parse_args()
    every = [*shared.names(), launcher.NAME]
    unknown = set(asked.targets) - set(every)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}: {', '.join(every)}")
    outcomes = []
    for name in asked.targets or every:
        is_launcher = name == launcher.NAME
        seconds = (
            asked.launcher_seconds if is_launcher and asked.launcher_seconds else asked.seconds
        )
        one = fuzz(name, seconds)
        sys.stdout.write(
            f"{one.target:12} {one.seconds:6.0f} s {one.executions:10} executions, coverage "
            f"{one.coverage:5}, corpus {one.corpus:5}, {len(one.findings)} findings\n"
        )
        for path in one.findings:
            sys.stdout.write(f"  {path}: see {CACHE / name / 'log'}\n")
        sys.stdout.flush()
        (CACHE / name / "outcome.json").write_bytes(msgspec.json.encode(one))
        outcomes.append(one)
    if asked.document:
        _document(every)
    return 1 if any(one.findings for one in outcomes) else 0


def fuzz(name: str, seconds: int) -> Outcome:
    """Run one target."""
    folder = CACHE / name
    corpus, seeds = folder / "corpus", folder / "seeds"
    shutil.rmtree(seeds, ignore_errors=True)
    for one in (corpus, seeds):
        one.mkdir(parents=True, exist_ok=True)
    is_launcher = name == launcher.NAME
    given = list(launcher.seeds()) if is_launcher else shared.all_seeds(name)
    for seed in given:
        (seeds / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    words = launcher.WORDS if is_launcher else shared.words(given, _own_words(name))
    (folder / "words").write_text("".join(f'"{_quoted(word)}"\n' for word in words))
    before = set(folder.glob("finding-*"))
    begun = time.monotonic()
    command = [launcher.build(folder)] if is_launcher else _python(name)
    arguments = [
        f"-max_total_time={seconds}",
        f"-timeout={_INPUT_SECONDS}",
        f"-rss_limit_mb={_MEMORY_MIB}",
        f"-max_len={launcher.LARGEST_BYTES if is_launcher else _LARGEST_BYTES}",
        f"-dict={folder / 'words'}",
        f"-artifact_prefix={folder}/finding-",
        "-print_final_stats=1",
        "-verbosity=1",
        str(corpus),
        str(seeds),
    ]
    log = folder / "log"
    with log.open("wb") as file:
        status = subprocess.run(
            [*_apart(), *command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(shared.ROOT / "tests")},
            timeout=seconds + _SLACK_SECONDS,
            check=False,
        ).returncode
    said = log.read_bytes()
    findings = tuple(sorted(map(str, set(folder.glob("finding-*")) - before)))
    if status != 0 and not findings:
        findings = (str(log),)
    states = _STATUS.findall(said)
    executions, coverage = (int(states[-1][0]), int(states[-1][1])) if states else (0, 0)
    runs = _RUNS.search(said)
    return Outcome(
        name,
        time.monotonic() - begun,
        int(runs[1]) if runs else executions,
        coverage,
        len(list(corpus.iterdir())),
        findings,
    )


def _python(name: str) -> list[str]:
    return [sys.executable, "-m", "fuzz.one", name]


def _apart() -> list[str]:
    """A network namespace of its own: what is done by mistake is done there."""
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]


def _own_words(name: str) -> tuple[str, ...]:
    words: tuple[str, ...] = getattr(shared.load(name), "WORDS", ())
    return words


def _quoted(word: bytes) -> str:
    return "".join(
        chr(one) if 32 <= one < 127 and one not in b'"\\' else f"\\x{one:02x}" for one in word
    )


def _document(every: list[str]) -> None:
    """Write the table `fuzz` of each target's last run; `bench/` has what writes tables."""
    files = [CACHE / name / "outcome.json" for name in every]
    outcomes = [
        msgspec.json.decode(one.read_bytes(), type=Outcome) for one in files if one.exists()
    ]
    sys.path.append(str(shared.ROOT / "bench"))
    from tables import table, write_document

    rows = [
        (
            one.target,
            f"{one.seconds / 60:.1f}",
            f"{one.executions:,}",
            str(one.coverage),
            str(len(one.findings)),
        )
        for one in outcomes
    ]
    head = ("target", "minutes", "inputs", "edges covered", "findings")
    text = (
        "Made by `make fuzz FUZZ='--document'` of each target's last run, which begins with the\n"
        "corpus of those before. What a target is stands in `tests/fuzz/targets/`, the\n"
        "launcher's in `tests/fuzz/launcher.c`; what was found in\n"
        "`tests/fuzz/test_findings.py`.\n\n"
    )
    write_document(DOCUMENT, {"fuzz": text + table(head, rows)})


if __name__ == "__main__":
    sys.exit(main())
