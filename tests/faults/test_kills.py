"""Some of the moments of every plugin; `make faults` tries all, and the reference beside them."""

from __future__ import annotations

import pytest

from .kills import ERRORS, Options, trials
from .scenarios import SCENARIOS, Scenario

# overlay under another name, with another file: that is for `make faults`.
_ALIKE = frozenset({"flannel"})
_HERE = [one for one in SCENARIOS if not one.stock and one.name not in _ALIKE]
_STOCK = [one for one in SCENARIOS if one.stock]
# One of each way to work: by netlink alone, by another's program, in a daemon, with a record.
_ALONE = frozenset({"bridge", "bridge, iptables", "dhcp", "host-device"})
_NUMBERS = sorted({one for numbers in ERRORS.values() for one in numbers})


def _served(scenario: Scenario) -> list[tuple[Scenario, str, int]]:
    """Warm each; a process a call takes three times as long."""
    alone = [(scenario, "standalone", 2)] if scenario.name in _ALONE else []
    return [(scenario, "warm", 4), *alone]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "served", "sample"),
    [one for scenario in _HERE for one in _served(scenario)],
    ids=lambda one: getattr(one, "name", None) or str(one),
)
def test_kills(scenario: Scenario, served: str, sample: int) -> None:
    """[W-G5, W-HL4] SIGKILL, then what a runtime does or GC: the host is as it was before."""
    tally = trials(scenario, Options(served, sample=sample))
    assert tally.notes == []
    # Otherwise this has tested nothing.
    assert sum(tally.hit.values()) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("scenario", _HERE, ids=lambda one: one.name)
def test_errors(scenario: Scenario) -> None:
    """[W-G5, W-G19] An error of the system: one of the protocol, and an ADD has left nothing."""
    faults = tuple(f"error={one}" for one in _NUMBERS)
    tally = trials(scenario, Options("warm", sample=1, faults=faults))
    assert tally.notes == []
    assert sum(tally.hit.values()) >= 6


@pytest.mark.vm
@pytest.mark.parametrize("scenario", _STOCK, ids=lambda one: one.name)
def test_kills_on_a_stock_kernel(scenario: Scenario) -> None:
    """[W-G5] The same where the kernel has the kinds."""
    tally = trials(scenario, Options(sample=4))
    assert tally.notes == []
    assert sum(tally.hit.values()) >= 6
