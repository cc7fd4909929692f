"""The agent's log: a line of JSON an event, on stderr; journald takes it from there."""

from __future__ import annotations

import json
import sys

# Of a list: a large cluster changes in thousands of steps at once.
_SHOWN = 24


def log(event: str, **more: object) -> None:
    """One line: what has happened, and what belongs to it. Texts of others stay on it."""
    line: dict[str, object] = {"event": event}
    for key, value in more.items():
        line[key] = value
        if isinstance(value, list) and len(value) > _SHOWN:
            line[key] = [*value[:_SHOWN], f"and {len(value) - _SHOWN} more"]
    try:
        sys.stderr.write(json.dumps(line, separators=(",", ":"), default=str) + "\n")
        sys.stderr.flush()
    except OSError:
        return
