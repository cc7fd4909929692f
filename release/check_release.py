#!/usr/bin/env python3
"""check-release [VERSION]: whether the newest tag, CHANGELOG.md and what is built agree.

VERSION is what a build calls itself; without it only tag and changes are compared. The rules are in
docs/releasing.md. Prints what is wrong, one line each, and exits with 1 then.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
_HEADING = re.compile(r"## (\S+) \((\d{4}-\d\d-\d\d|unreleased)\)")


def main() -> None:
    """Compare what there is; a checkout without tags or without git has less of it."""
    if len(sys.argv) > 2:
        sys.exit(f"usage: {Path(sys.argv[0]).name} [VERSION]")
    built = sys.argv[1] if len(sys.argv) == 2 else None
    heading = changelog_heading((ROOT / "CHANGELOG.md").read_text())
    newest, here = _git("describe", "--abbrev=0"), _git("describe", "--exact-match")
    problems = list(disagreements(heading, newest, here, built))
    if problems:
        sys.exit("\n".join(f"check-release: {one}" for one in problems))


def changelog_heading(text: str) -> tuple[str, str] | None:
    """The version and the date, or `unreleased`, of the first section; None where it is no such."""
    first = next((line for line in text.splitlines() if line.startswith("## ")), "")
    found = _HEADING.fullmatch(first)
    return (found[1], found[2]) if found and _version(found[1]) else None


def disagreements(
    heading: tuple[str, str] | None, newest: str, here: str, built: str | None
) -> Iterator[str]:
    """What is wrong; `newest` tag and the one `here`, on this commit, are `""` for none."""
    if heading is None:
        yield "CHANGELOG.md: its first section is not `## VERSION (YYYY-MM-DD)` or `(unreleased)`"
        return
    version, date = Version(heading[0]), heading[1]
    for tag in dict.fromkeys(filter(None, (newest, here))):
        if _version(tag.removeprefix("v")) is None:
            yield f"the tag {tag} is not v and a version"
            return
    if here:
        tagged = Version(here.removeprefix("v"))
        if version != tagged or date == "unreleased":
            yield f"{here} is here, and CHANGELOG.md begins with {heading[0]} ({date})"
        if built is not None and Version(built) != tagged:
            yield f"{here} is here, and {built} was built: commit what has changed"
    elif newest:
        before = Version(newest.removeprefix("v"))
        if version < before or (version == before and date == "unreleased"):
            yield f"{newest} is released, and CHANGELOG.md begins with {heading[0]} ({date})"


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _git(*arguments: str) -> str:
    """What git prints; `""` where it fails, as it does without tags."""
    command = ["git", "-C", str(ROOT), *arguments, "--tags", "--match", "v[0-9]*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    main()
