"""bandwidth's numbers, as pure functions of the configuration."""

from __future__ import annotations

from typing import Any

import pytest

from cni_py.plugins.bandwidth_config import Config, plan_of
from cni_py.spec.config import decode_config
from cni_py.spec.errors import CniError


def plan(**keys: Any) -> Any:
    return plan_of(decode_config({"name": "net1", **keys}, Config))


def bucket(rate: int, burst: int) -> tuple[int, ...]:
    planned = plan(ingressRate=rate, ingressBurst=burst).ingress
    return tuple(planned)


@pytest.mark.parametrize(
    ("rate", "burst", "expected"),
    [
        # A.12.
        (8_000_000, 800_000, (1_000_000, 100_000, 125_000, 1_562_500)),
        # The reference's own tests.
        (8, 8, (1, 1, 1, 15_625_000)),
        (16, 8, (2, 1, 1, 7_812_500)),
        (123, 123, (15, 15, 15, 15_625_000)),
        # What does not fit 32 bits, and what a Kubernetes runtime gives as burst.
        (2**36, 2**20, (2**33, 2**17, 214_748_364 + 2**17, 234)),
        (1_000_000, 2**31 - 1, (125_000, 268_435_455, 268_438_580, 33_554_431_875)),
    ],
)
def test_buckets(rate: int, burst: int, expected: tuple[int, ...]) -> None:
    """[6.2] [W-BW5] Bytes a second and at once, the queue's bytes, the tokens in ticks of 64 ns."""
    assert bucket(rate, burst) == expected


def test_queue_of_more_than_32_bits() -> None:
    """[W-BW5] The most that the kernel takes, where the reference's wraps."""
    assert bucket(2**41, 8 * (2**32 - 2))[2] == 2**32 - 1


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"ingressRate": 8}, "if rate is set, burst must also be set"),
        ({"egressRate": 8}, "if rate is set, burst must also be set"),
        ({"ingressBurst": 8}, "if burst is set, rate must also be set"),
        ({"egressRate": 0, "egressBurst": 8}, "if burst is set, rate must also be set"),
        ({"ingressRate": 8, "ingressBurst": 2**35}, "burst cannot be more than 4GB"),
        ({"ingressRate": 7, "ingressBurst": 800}, "ingressRate cannot be less than 8 bits"),
        ({"egressRate": 800, "egressBurst": 7}, "egressBurst cannot be less than 8 bits"),
        ({"ingressRate": 2**64, "ingressBurst": 800}, "ingressRate cannot be more than"),
        ({"ingressRate": 2**40, "ingressBurst": 800_000}, "ingressBurst 800000 is too small"),
        ({"egressRate": 24, "egressBurst": 8}, "egressBurst 8 is too small for egressRate 24"),
        ({"ingressRate": -1, "ingressBurst": 8}, "$.ingressRate: Expected `int` >= 0"),
        ({"ingressRate": "8", "ingressBurst": 8}, "$.ingressRate: Expected `int | null`"),
        ({"ingressRate": 8.5, "ingressBurst": 8}, "$.ingressRate: Expected `int | null`"),
        ({"unshapedSubnets": ["hello"]}, "$.unshapedSubnets[0]: invalid CIDR address: hello"),
        ({"shapedSubnets": ["10.0.0.0"]}, "$.shapedSubnets[0]: invalid CIDR address: 10.0.0.0"),
        (
            {"shapedSubnets": ["10.0.0.0/8"], "unshapedSubnets": ["192.168.0.0/16"]},
            "unshapedSubnets and shapedSubnets cannot be both specified",
        ),
    ],
)
def test_refused(keys: dict[str, Any], text: str) -> None:
    """[6.2] [W-BW5] Code 7, with the keys' values; the same by the runtime."""
    where = {"runtimeConfig": {"bandwidth": keys}}
    for config, said in ((keys, text), (where, text.replace("$.", "$.runtimeConfig.bandwidth."))):
        with pytest.raises(CniError) as caught:
            plan(**config)
        assert caught.value.code == 7
        assert said in caught.value.msg
        assert caught.value.details


def test_least_burst_is_told() -> None:
    with pytest.raises(CniError) as caught:
        bucket(2**40, 800_000)
    least = int(caught.value.details.split()[4])
    assert bucket(2**40, least)[0] == 2**37


def test_whose_rates_count() -> None:
    """[6.2] [W-BW5] One of the four in the configuration, 0 too: the runtime's are ignored."""
    runtime = {"runtimeConfig": {"bandWidth": {"INGRESSRATE": 8000, "ingressBurst": 8000}}}
    assert plan(**runtime).ingress.rate == 1000
    assert plan(**runtime, ingressRate=0).ingress is None
    assert plan(**runtime, ingressRate=None).ingress.rate == 1000
    assert not plan(**runtime, egressBurst=0).limits
    assert plan(**runtime, egressRate=80, egressBurst=80).egress.rate == 10


def test_whose_subnets_count() -> None:
    """They may be the operator's when the rates are the runtime's."""
    rates = {"ingressRate": 8000, "ingressBurst": 8000}
    runtime = {"runtimeConfig": {"bandwidth": rates | {"shapedSubnets": ["10.0.0.0/8"]}}}
    assert plan(**runtime).shaped
    own = plan(**runtime, unshapedSubnets=["10.1.2.3/16", "fd00::/8", "10.1.0.0/16"])
    assert own.ingress.rate == 1000
    assert [str(one) for one in own.subnets] == ["10.1.0.0/16", "fd00::/8"]
    assert not own.shaped
    assert plan(**rates, unshapedSubnets=[]).subnets == ()
