"""bandwidth's configuration, and what it comes to: token buckets and subnets (plugins.md 6.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias

import msgspec

from cni_py.kernel import tc
from cni_py.kernel.tc import Bucket
from cni_py.spec.addresses import Cidr
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, refusals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import Network
    from cni_py.spec.call import Call

Bits: TypeAlias = Annotated[int, msgspec.Meta(ge=0)] | None
Subnets: TypeAlias = tuple[Cidr, ...] | None

_BITS = 8
_LARGEST = 2**64 - 1
# What may wait in the queue: the reference's latency.
_LATENCY_MICROSECONDS = 25_000.0
_MICROSECONDS = 1_000_000.0
_TICKS_A_MICROSECOND = 1000 / tc.TICK_NANOSECONDS


class Limits(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """What the runtime may say of both directions: bits a second, and bits."""

    ingress_rate: Bits = None
    """Bits a second to the container, 8 at least; 0: no limit."""
    ingress_burst: Bits = None
    """Bits that may go to the container at once; with a rate, and less than 4 GB."""
    egress_rate: Bits = None
    """Bits a second from the container, 8 at least; 0: no limit."""
    egress_burst: Bits = None
    """Bits that may leave the container at once; with a rate, and less than 4 GB."""
    unshaped_subnets: Subnets = None
    """What comes from there or goes there is not limited."""
    shaped_subnets: Subnets = None
    """Nothing but what comes from there or goes there is limited."""


class RuntimeConfig(msgspec.Struct, kw_only=True, frozen=True, rename="camel"):
    """What the capability `bandwidth` brings."""

    bandwidth: Limits | None = None
    """The capability `bandwidth`: the same keys from the runtime."""


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """DEL and GC go by what there is: no configuration keeps them from it (W-BW5)."""


class Config(DelConfig, frozen=True, kw_only=True):
    """bandwidth's keys. Ingress is what goes to the container."""

    ingress_rate: Bits = None
    """Bits a second to the container, 8 at least; 0: no limit."""
    ingress_burst: Bits = None
    """Bits that may go to the container at once; with a rate, and less than 4 GB."""
    egress_rate: Bits = None
    """Bits a second from the container, 8 at least; 0: no limit."""
    egress_burst: Bits = None
    """Bits that may leave the container at once; with a rate, and less than 4 GB."""
    unshaped_subnets: Subnets = None
    """What comes from there or goes there is not limited."""
    shaped_subnets: Subnets = None
    """Nothing but what comes from there or goes there is limited."""
    runtime_config: RuntimeConfig = RuntimeConfig()
    """What the capabilities bring."""


class Plan(NamedTuple):
    """What to set, None for a direction without a limit.

    With `shaped` the subnets are those that the limits are for, else those that they are not for;
    without subnets the limits are for everything.
    """

    ingress: Bucket | None
    egress: Bucket | None
    subnets: tuple[Network, ...]
    shaped: bool

    @property
    def limits(self) -> bool:
        """Whether there is anything to set."""
        return self.ingress is not None or self.egress is not None


def plan_of(config: Config) -> Plan:
    """Check what types cannot say, and reckon. Raises CniError 7.

    One rate or burst in the configuration itself, 0 too, and the runtime's are not looked at: so
    does the reference. Its subnets are the configuration's where it has some, else the runtime's.
    """
    source, runtime = _source(config)
    return Plan(
        _bucket("ingress", source.ingress_rate or 0, source.ingress_burst or 0),
        _bucket("egress", source.egress_rate or 0, source.egress_burst or 0),
        *_subnets(config, runtime),
    )


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    source, runtime = _source(call.config)
    given = (source.ingress_rate or 0, source.ingress_burst or 0)
    yield from refusals("ingressRate", _bucket, "ingress", *given)
    given = (source.egress_rate or 0, source.egress_burst or 0)
    yield from refusals("egressRate", _bucket, "egress", *given)
    yield from refusals("shapedSubnets", _subnets, call.config, runtime)


def _source(config: Config) -> tuple[Config | Limits, Limits]:
    """What has the rates and bursts that count, and what the runtime says."""
    runtime = config.runtime_config.bandwidth or Limits()
    own = (config.ingress_rate, config.ingress_burst, config.egress_rate, config.egress_burst)
    return (runtime if own == (None,) * 4 else config), runtime


def _subnets(config: Config, runtime: Limits) -> tuple[tuple[Network, ...], bool]:
    unshaped = config.unshaped_subnets
    shaped = config.shaped_subnets
    if unshaped is None and shaped is None:
        unshaped, shaped = runtime.unshaped_subnets, runtime.shaped_subnets
    if unshaped and shaped:
        msg = "unshapedSubnets and shapedSubnets cannot be both specified"
        raise CniError(Code.INVALID_CONFIG, msg, "one of them should be discarded")
    return tuple(dict.fromkeys(one.network for one in shaped or unshaped or ())), bool(shaped)


def _bucket(direction: str, rate: int, burst: int) -> Bucket | None:
    """The reference's parameters, to the number, where they fit the kernel's (A.12)."""
    if not rate and not burst:
        return None
    _require_sensible(direction, rate, burst)
    a_second, at_once = rate // _BITS, burst // _BITS
    # The reference reckons in floating point, and whole microseconds.
    microseconds = int(float(at_once) * _MICROSECONDS / float(a_second))
    ticks = int(microseconds * _TICKS_A_MICROSECOND)
    waiting = int(float(a_second) * _LATENCY_MICROSECONDS / _MICROSECONDS)
    bucket = Bucket(a_second, at_once, min(waiting + at_once, tc.MAX_U32), ticks)
    if ticks * tc.TICK_NANOSECONDS * a_second < 10**9:
        # The kernel takes it for no tokens at all.
        msg = f"{direction}Burst {burst} is too small for {direction}Rate {rate}"
        least = (a_second // 10**6 + 2) * _BITS
        raise CniError(Code.INVALID_CONFIG, msg, f"it has to be {least} bits at least")
    return bucket


def _require_sensible(direction: str, rate: int, burst: int) -> None:
    given = f"{direction}Rate is {rate}, {direction}Burst is {burst}"
    if not burst:
        raise CniError(Code.INVALID_CONFIG, "if rate is set, burst must also be set", given)
    if not rate:
        raise CniError(Code.INVALID_CONFIG, "if burst is set, rate must also be set", given)
    if burst // _BITS >= tc.MAX_U32:
        raise CniError(Code.INVALID_CONFIG, "burst cannot be more than 4GB", given)
    if rate > _LARGEST:
        msg = f"{direction}Rate cannot be more than {_LARGEST} bits a second"
        raise CniError(Code.INVALID_CONFIG, msg, given)
    for key, value in (("Rate", rate), ("Burst", burst)):
        if value < _BITS:
            # The kernel counts bytes; none a second divides by zero in the reference.
            msg = f"{direction}{key} cannot be less than 8 bits"
            raise CniError(Code.INVALID_CONFIG, msg, given)
