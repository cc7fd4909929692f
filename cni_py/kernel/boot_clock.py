"""The clock of what outlives processes and not the machine: leases, claims, files below /run."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds since the boot, also those that the machine slept; nobody sets it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
