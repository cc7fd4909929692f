"""The warm server under measurement: its processes, their CPU time and memory, its log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host import ROOT, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

PRIVATE = ("Private_Clean", "Private_Dirty")

_COMMAND = ROOT / ".venv" / "bin" / "cni-py"
_LOG = Path("/run/server.log")
_SECONDS = 20
_TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """`cni-py serve` in this process's namespaces."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        with _LOG.open("w") as log:
            self._process = subprocess.Popen([_COMMAND, "serve", *options], stderr=log)
        deadline = time.monotonic() + _SECONDS
        while '"listening"' not in _LOG.read_text():
            if time.monotonic() > deadline or self._process.poll() is not None:
                sys.exit(f"bench: the server does not listen: {_LOG.read_text()}")
            settle()
        # The workers rehearse.
        settle(1)

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_SECONDS)

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(one) for one in path.read_text().split()]

    def cpu_seconds(self) -> float:
        """What the server, its workers, and those that have ended have used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ended = (int(fields[13]) + int(fields[14])) / _TICK
        return ended + sum(map(_on_processor_seconds, (self._process.pid, *self.workers())))

    def memory_mib(self) -> float:
        """Proportional memory of the server and its workers together."""
        return sum(memory_mib(pid, ("Pss",)) for pid in (self._process.pid, *self.workers()))

    def calls(self) -> list[dict[str, Any]]:
        """The log's lines on calls."""
        lines = [json.loads(line) for line in _LOG.read_text().splitlines()]
        return [line for line in lines if line.get("event") == "call"]


def memory_mib(pid: int, kinds: tuple[str, ...]) -> float:
    """A process's memory of the given kinds in /proc/<pid>/smaps_rollup; 0 if it has gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = (line.split() for line in text.splitlines())
    return sum(int(one[1]) for one in fields if one[0].rstrip(":") in kinds) / 1024


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return [pid]
    return [pid, *(one for child in children for one in family(int(child)))]


def _on_processor_seconds(pid: int) -> float:
    """CPU time of a process of one thread, to the nanosecond (/proc/<pid>/schedstat)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
