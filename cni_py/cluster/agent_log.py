"""The agent's log: a line of JSON an event, on stderr; journald takes it from there."""

from __future__ import annotations

import json
import sys


def log(event: str, **more: object) -> None:
    """One line: what has happened, and what belongs to it. Texts of others stay on it."""
    line = {"event": event, **more}
    try:
        sys.stderr.write(json.dumps(line, separators=(",", ":"), default=str) + "\n")
        sys.stderr.flush()
    except OSError:
        return
