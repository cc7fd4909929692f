"""Choosing addresses out of range sets, and claiming them for an owner: what host-local does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.kernel.netns import cookie, open_netns
from cni_py.spec.addresses import IP, strip_prefix
from cni_py.spec.args import load_args
from cni_py.spec.errors import CniError, Code

from .index import Owner, Sandbox
from .ranges import describe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cni_py.spec.call import Call

    from .peek import Peek
    from .ranges import Range, RangeSet
    from .store import Allocations

    Looked = Allocations | Peek

_SHOWN = 40


class Picked(NamedTuple):
    """An address, the range that it is of, and the place of its set."""

    address: IP
    run: Range
    set_index: int


def claim(
    allocations: Allocations,
    owner: Owner,
    netns: str,
    sets: tuple[RangeSet, ...],
    wanted: list[IP | None],
    *,
    before: frozenset[IP],
    avoided: Collection[IP] = (),
) -> list[Picked]:
    """Have the owner hold an address of each set. `before` are tried first, `avoided` not at all
    unless they are wanted. Raises CniError; nothing is claimed then.
    """
    allocations.prepare(owner, _sandbox(netns))
    try:
        picked = pick_all(allocations, sets, wanted, before, avoided)
        last = {one.set_index: one.address for one in picked if one.address not in before}
        allocations.record(last)
        # Here and not only at the end: what interrupts it must find the undoing below.
        allocations.settle()
    except BaseException:
        allocations.give_back(owner)
        raise
    return picked


def requested(call: Call[Any]) -> list[IP]:
    """The addresses asked for, by CNI_ARGS, `args.cni.ips` and the capability `ips`."""
    asked = load_args(call.args, ("IP",)) if call.args else {}
    sources = [("CNI_ARGS IP", asked["IP"])] if "IP" in asked else []
    sources += [("args.cni.ips", one) for one in call.config.args.cni.ips]
    sources += [("runtimeConfig.ips", one) for one in call.config.runtime_config.ips]
    found: dict[IP, None] = {}
    for source, text in sources:
        try:
            address = strip_prefix(text)
        except ValueError:
            msg = f"invalid IP address {text}"
            raise CniError(Code.INVALID_CONFIG, msg, f"in {source}") from None
        found[address] = None
    return list(found)


def _sandbox(netns: str) -> Sandbox:
    """Path and cookie of CNI_NETNS; without a cookie where it cannot be entered."""
    try:
        opened = open_netns(netns) if netns else None
        if opened is None:
            return Sandbox(netns)
        with opened, opened.entered():
            return Sandbox(netns, cookie())
    except CniError:
        return Sandbox(netns)


def supersede(allocations: Looked, owner: Owner, sets: tuple[RangeSet, ...]) -> frozenset[IP]:
    """Free what the owner still holds from a namespace that is gone; refuse if it lives (W-G20).

    Returns what was freed: the owner gets it again, so that whatever else was set up for it fits.
    An allocation that nobody recorded a namespace for counts as living.
    """
    freed: set[IP] = set()
    for one in (owner, Owner(owner.container_id, "")):
        entry = allocations.entry(one)
        if entry is None:
            continue
        if entry.sandbox.why_gone():
            freed.update(allocations.release(entry.owner))
            continue
        held = [one for one in map(strip_prefix, entry.addresses) if in_sets(sets, one)]
        if held:
            msg = (
                f"{held[0]} has been allocated to {owner.container_id}, "
                "duplicate allocation is not allowed"
            )
            where = entry.sandbox.path or "an unknown namespace"
            details = f"interface {owner.ifname} in {where}: DEL comes before the next ADD"
            raise CniError(Code.INTERNAL, msg, details)
    return frozenset(freed)


def in_sets(sets: tuple[RangeSet, ...], address: IP) -> bool:
    """Whether a set has the address."""
    return any(run_of(ranges, address) is not None for ranges in sets)


def wanted_of(sets: tuple[RangeSet, ...], requested: list[IP]) -> list[IP | None]:
    """Which of the requested addresses each set is to give. Raises CniError 7 where none can."""
    left = list(requested)
    wanted: list[IP | None] = []
    for index, ranges in enumerate(sets):
        address = next((one for one in left if run_of(ranges, one) is not None), None)
        wanted.append(address)
        if address is None:
            continue
        left.remove(address)
        if any(address == one.gateway for one in ranges):
            msg = f"requested ip {address} is subnet's gateway"
            raise CniError(Code.INVALID_CONFIG, msg, f"range set {index} is {describe(ranges)}")
    if left:
        listed = " ".join(str(one) for one in left[:_SHOWN])
        listed += " ..." if len(left) > _SHOWN else ""
        msg = f"failed to allocate all requested IPs: {listed}"
        details = "each range set gives one address: " + "; ".join(map(describe, sets))
        raise CniError(Code.INVALID_CONFIG, msg, details)
    return wanted


def pick_all(
    allocations: Looked,
    sets: tuple[RangeSet, ...],
    wanted: list[IP | None],
    before: frozenset[IP],
    avoided: Collection[IP] = (),
) -> list[Picked]:
    """An address of each set: one requested, else one held before, else the next free one."""
    picked: list[Picked] = []
    for index, (ranges, address) in enumerate(zip(sets, wanted, strict=True)):
        gateways = {one.gateway for one in ranges}
        usable = (one for one in before - gateways if run_of(ranges, one) is not None)
        given = address or next(usable, None)
        if given is None:
            picked.append(_pick(allocations, index, ranges, avoided))
        else:
            picked.append(_pick_given(allocations, index, ranges, given))
    return picked


def _pick_given(allocations: Looked, index: int, ranges: RangeSet, address: IP) -> Picked:
    run = run_of(ranges, address)
    if run is None:
        raise ValueError(address)
    if not allocations.claim(run, address):
        msg = f"requested IP address {address} is not available in range set {describe(ranges)}"
        holder = allocations.holder(address)
        details = "" if holder is None else f"container {holder.container_id} holds it"
        raise CniError(Code.INTERNAL, msg, details)
    return Picked(address, run, index)


def _pick(allocations: Looked, index: int, ranges: RangeSet, avoided: Collection[IP]) -> Picked:
    """The next free address after the last one that was given, round the set."""
    for run, position in free(allocations, index, ranges):
        address = run.address(position)
        if address not in avoided and allocations.claim(run, address):
            return Picked(address, run, index)
    raise ExhaustedError(index, ranges)


def free(allocations: Looked, index: int, ranges: RangeSet) -> Iterator[tuple[Range, int]]:
    """Free places of a set from the one after the last reserved on, no gateway among them.

    When the bits say that the set is full, they are made anew: they may be behind the files.
    """
    gateways = {one.gateway for one in ranges}
    last = allocations.last_reserved(index)
    run = None if last is None else run_of(ranges, last)
    first, start = 0, 0
    if run is not None and last is not None:
        first, start = ranges.index(run), (run.position(last) or 0) + 1
    turns = [(ranges[first], start, ranges[first].size)]
    turns += [(one, 0, one.size) for one in (*ranges[first + 1 :], *ranges[:first])]
    turns.append((ranges[first], 0, start))
    for attempt in range(2):
        if attempt:
            for one in ranges:
                allocations.recount(one)
        for one, begin, end in turns:
            for position in allocations.free_positions(one, begin, end):
                if one.address(position) not in gateways:
                    yield one, position


def run_of(ranges: RangeSet, address: IP) -> Range | None:
    """The range of a set that has the address."""
    return next((one for one in ranges if one.position(address) is not None), None)


class ExhaustedError(CniError):
    """A range set has no address left; `set_index` is its number."""

    def __init__(self, index: int, ranges: RangeSet) -> None:
        found = _exhausted(index, ranges)
        super().__init__(found.code, found.msg, found.details)
        self.set_index = index


def _exhausted(index: int, ranges: RangeSet) -> CniError:
    msg = f"no IP addresses available in range set: {describe(ranges)}"
    total = sum(one.size for one in ranges)
    return CniError(Code.INTERNAL, msg, f"range set {index}: all of its {total} are taken")
