"""Whose turn it is: shares by weight, no bursts, and nobody who has just failed."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cni_py.discovery.choosing import Choice
from cni_py.services.instance import Instance

weights = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def _instances(*weights: int) -> list[Instance]:
    return [
        Instance(
            service="web", id=f"c{number}", node="n", network="n", addresses=("10.0.0.1",),
            port=80, weight=weight,
        )
        for number, weight in enumerate(weights)
    ]  # fmt: skip


def _sequence(choice: Choice, instances: list[Instance], count: int, by="weight") -> list[str]:
    return [choice.next(instances, by, 0.0).id for _ in range(count)]


@given(weights, st.integers())
def test_each_gets_its_share_of_every_round(given_weights, seed):
    instances = _instances(*given_weights)
    choice = Choice(random.Random(seed))
    for _ in range(3):
        told = Counter(_sequence(choice, instances, sum(given_weights)))
        assert told == {f"c{number}": weight for number, weight in enumerate(given_weights)}


@given(st.integers(1, 6), st.integers())
def test_by_turns_weights_do_not_count(count, seed):
    instances = _instances(*range(1, count + 1))
    choice = Choice(random.Random(seed))
    sequence = _sequence(choice, instances, 3 * count, "turn")
    assert sequence[:count] == sequence[count : 2 * count] == sequence[2 * count :]
    assert set(sequence) == {one.id for one in instances}


def test_no_bursts():
    sequence = _sequence(Choice(random.Random(1)), _instances(5, 1, 1), 14)
    assert "c0" * 5 not in "".join(sequence)
    assert "c1c1" not in "".join(sequence)


def test_the_first_is_drawn_by_weight():
    instances = _instances(3, 1)
    lot = random.Random(7)
    firsts = Counter(Choice(lot).next(instances, "weight", 0.0).id for _ in range(4000))
    assert 2800 < firsts["c0"] < 3200


def test_who_has_failed_is_passed_over_for_longer_each_time():
    first, second = instances = _instances(1, 1)
    choice = Choice()
    now = 100.0
    for penalty in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        choice.failed(first, now)
        assert choice.again([first]) == now + penalty
        for _ in range(4):
            assert choice.next(instances, "turn", now + penalty * 0.99) == second
        now += penalty
        assert first in [choice.next(instances, "turn", now) for _ in range(4)]
    choice.failed(second, now)
    choice.failed(first, now)
    assert choice.next(instances, "turn", now) is None
    assert choice.again(instances) == now + 0.5
    choice.worked(first)
    assert choice.next(instances, "turn", now) == first
    choice.failed(first, now)
    # Its penalty begins anew.
    assert choice.again([first]) == now + 0.5
    # And who comes back by another registration has none.
    assert choice.next([], "turn", now) is None
    assert choice.again([]) == float("inf")
    assert choice.next(instances, "turn", now) is not None


@given(st.lists(st.tuples(weights, st.booleans()), max_size=8), st.integers())
def test_whatever_comes_and_goes_one_of_those_is_chosen(rounds, seed):
    choice = Choice(random.Random(seed))
    for number, (given_weights, fails) in enumerate(rounds):
        instances = _instances(*given_weights)
        chosen = choice.next(instances, "weight", float(number))
        assert chosen in instances or choice.again(instances) > number
        if fails and chosen is not None:
            choice.failed(chosen, float(number))
