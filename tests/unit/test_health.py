"""When a service counts as answering: by checks in a row."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cni_py.services.health import Health

counts = st.integers(1, 4)


def run(rise: int, fall: int, answers: list[bool], *, healthy: bool = False) -> list[bool]:
    """What it is after each."""
    health, states = Health(rise=rise, fall=fall, healthy=healthy), []
    for one in answers:
        health = health.after(answered=one)
        states.append(health.healthy)
    return states


def test_rise_and_fall() -> None:
    answers = [True, True, False, True, False, False, True, False, False, False, True, True]
    states = run(2, 3, answers)
    assert states == [False, True, True, True, True, True, True, True, True, False, False, True]


def test_flapping_comes_in_never() -> None:
    assert not any(run(2, 3, [True, False] * 20))


def test_flapping_stays_in() -> None:
    assert all(run(2, 3, [False, True, False, False, True] * 20, healthy=True))


@given(counts, counts, st.lists(st.booleans()), st.booleans())
def test_by_the_last_checks_alone(rise, fall, answers, healthy) -> None:
    """It changes exactly when the last `rise` or `fall` since the change before all say so."""
    state, since = healthy, []
    expected = []
    for one in answers:
        since.append(one)
        needed = fall if state else rise
        if since[-needed:] == [not state] * needed:
            state, since = not state, []
        expected.append(state)
    assert run(rise, fall, answers, healthy=healthy) == expected


@given(counts, counts, st.lists(st.booleans()))
def test_ends_where_the_last_ones_lead(rise, fall, answers) -> None:
    for last, times in ((True, rise), (False, fall)):
        assert run(rise, fall, [*answers, *[last] * times])[-1] is last
