"""host-local: addresses from ranges that this host alone gives out (plugins.md 5.1)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.kernel import interruption, state_files
from cni_py.kernel.errors import unavailable
from cni_py.kernel.netns import cookie, open_netns
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.addresses import IP, Cidr, cidr, strip_prefix
from cni_py.spec.args import load_args
from cni_py.spec.attachment import Attachment
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, refusals
from cni_py.spec.names import validate_new_ifname
from cni_py.spec.results import DNS, IPConfig, Result, Route

from .index import Owner, Sandbox
from .ranges import RangeConfig, RangeSet, describe, range_mistakes, range_sets
from .resolv_conf import read_resolv_conf
from .store import DEFAULT_DATA_DIR, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection

    from .index import Entry
    from .peek import Peek
    from .ranges import Range
    from .store import Allocations

    Looked = Allocations | Peek

NAME = "host-local"

_MAX_FILE_NAME = 255
_SHOWN = 40


class _Ipam(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The `ipam` key. `subnet` and its three companions are the older form of one range."""

    type: str = NAME
    """`host-local`."""
    subnet: Cidr | None = None
    """The older form of a single range."""
    range_start: IP | None = None
    """The older form: the first address to give out."""
    range_end: IP | None = None
    """The older form: the last address to give out."""
    gateway: IP | None = None
    """The older form: the gateway."""
    ranges: tuple[tuple[RangeConfig, ...], ...] = ()
    """Range sets: one address of each is given out; a set is a list of ranges."""
    routes: tuple[Route, ...] = ()
    """Routes that become part of the result."""
    data_dir: str = DEFAULT_DATA_DIR
    """Where allocations are kept: an absolute path."""
    resolv_conf: str = ""
    """A resolv.conf whose content becomes `dns`."""


class _RuntimeConfig(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the capabilities `ips` and `ipRanges` bring."""

    ips: tuple[str, ...] = ()
    """The capability `ips`: addresses to have; a prefix length is ignored."""
    ip_ranges: tuple[tuple[RangeConfig, ...], ...] = ()
    """The capability `ipRanges`: range sets before those of `ipam.ranges`."""


class _CniArgs(msgspec.Struct, frozen=True, kw_only=True):
    ips: tuple[str, ...] = ()
    """Addresses to have; a prefix length is ignored."""


class _Args(msgspec.Struct, frozen=True, kw_only=True):
    cni: _CniArgs = _CniArgs()
    """Arguments for CNI plugins."""


class Config(PluginConfig, frozen=True, kw_only=True):
    """host-local's configuration."""

    ipam: _Ipam | None = None
    """Which addresses are given out."""
    runtime_config: _RuntimeConfig = _RuntimeConfig()
    """What the capabilities bring."""
    args: _Args = _Args()
    """What the runtime passes in `args.cni`."""


class _IpamFolder(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    data_dir: str = DEFAULT_DATA_DIR


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL and GC need: a wrong range must not keep an address allocated (W-HL5)."""

    ipam: _IpamFolder = _IpamFolder()


def add(call: Call[Config]) -> Result:
    """One address of each range set."""
    ipam = _ipam(call.config)
    sets = _sets(call)
    wanted = _wanted(sets, _requested(call))
    validate_new_ifname(call.ifname)
    dns = read_resolv_conf(ipam.resolv_conf) if ipam.resolv_conf else DNS()
    owner = Owner(call.container_id, call.ifname)
    store = _store(ipam.data_dir, call)
    with store.locked() as allocations:
        before = _supersede(allocations, owner, sets)
        allocations.prepare(owner, _sandbox(call.netns))
        try:
            picked = _pick_all(allocations, sets, wanted, before)
            last = {one.set_index: one.address for one in picked if one.address not in before}
            allocations.record(last)
            # Here and not only at the end: what interrupts it must find the undoing below.
            allocations.settle()
        except BaseException:
            allocations.give_back(owner)
            raise
    call.scope.enter_context(undone_on_failure(lambda: _release(store, owner)))
    return _result(ipam, picked, dns)


def plan(call: Call[Config]) -> Result:
    """What ADD would give now, if nobody else is faster. Changes nothing; raises what ADD does."""
    ipam = _ipam(call.config)
    sets = _sets(call)
    wanted = _wanted(sets, _requested(call))
    dns = read_resolv_conf(ipam.resolv_conf) if ipam.resolv_conf else DNS()
    peek = _store(ipam.data_dir, call).peek()
    before = _supersede(peek, Owner(call.container_id, call.ifname), sets)
    return _result(ipam, _pick_all(peek, sets, wanted, before), dns)


def delete(call: Call[DelConfig]) -> None:
    """Free what the attachment holds, whatever the ranges are now."""
    store = _store(call.config.ipam.data_dir, call)
    _release(store, Owner(call.container_id, call.ifname))


def check(call: Call[Config]) -> None:
    """Whether each address of the previous result that is ours to give is still this owner's."""
    ipam = _ipam(call.config)
    sets = _sets(call)
    owner = Owner(call.container_id, call.ifname)
    store = _store(ipam.data_dir, call)
    missing = f"host-local: Failed to find address added by container {call.container_id}"
    if not store.exists:
        raise CniError(Code.INTERNAL, missing, f"{store.folder} does not exist")
    with store.locked() as allocations:
        held = allocations.entry(owner) or allocations.entry(Owner(call.container_id, ""))
        if held is None:
            raise CniError(Code.INTERNAL, missing, f"no file in {store.folder} names it")
        listed = () if call.prev_result is None else call.prev_result.ips
        for one in listed:
            address = one.address.ip
            holder = allocations.holder(address)
            if _in_sets(sets, address) and holder != held.owner:
                names = "nobody" if holder is None else f"container {holder.container_id}"
                msg = f"host-local: address {address} is not allocated to {call.container_id}"
                raise CniError(Code.INTERNAL, msg, f"its file names {names}")


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when a range set has no address left, or the folder cannot be used."""
    ipam = _ipam(call.config)
    sets = _sets(call)
    store = _store(ipam.data_dir, call)
    with unavailable():
        store.require_room()
    with unavailable(), store.locked() as allocations:
        for index, ranges in enumerate(sets):
            if next(_free(allocations, index, ranges), None) is None:
                raise _exhausted(index, ranges)


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host, unless the runtime brings ranges that make up for it."""
    config = call.config
    if config.ipam is None:
        yield from refusals("ipam", _ipam, config)
        return
    ranges = _configured(config)
    if ranges or not config.capabilities.get("ipRanges", False):
        yield from range_mistakes(ranges, call.request.cni_version)
    yield from refusals("ipam.dataDir", _store, config.ipam.data_dir, call)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Free the addresses of the attachments that the collection takes."""
    store = _store(call.config.ipam.data_dir, call)
    if not store.exists:
        return
    with store.locked(reclaims=not collection.dry) as allocations:
        for entry in allocations.entries():
            interruption.point()
            if allocations.is_of_earlier_boot(entry):
                what = f"address {', '.join(entry.addresses)} of {entry.container_id}"
                collection.takes_unowned(what, "it is of an earlier boot")
            elif _is_taken(entry, collection):
                allocations.release(entry.owner)
        for path in allocations.set_aside():
            if collection.takes_unowned(path, "it was damaged, and has been done without"):
                state_files.discard(path)


def _is_taken(entry: Entry, collection: Collection) -> bool:
    what = f"address {', '.join(entry.addresses)}"
    evidence = entry.sandbox.why_gone
    if not entry.ifname:
        return collection.takes_of_container(what, entry.container_id, evidence)
    owner = Attachment(collection.network, entry.container_id, entry.ifname)
    return collection.takes(what, owner, evidence)


def _release(store: Store, owner: Owner) -> None:
    if store.exists:
        with store.locked() as allocations:
            if not allocations.release(owner):
                # Files of long ago name the container alone.
                allocations.release(Owner(owner.container_id, ""))


class _Picked(NamedTuple):
    address: IP
    run: Range
    set_index: int


def _result(ipam: _Ipam, picked: list[_Picked], dns: DNS) -> Result:
    ips = tuple(
        IPConfig(cidr(one.address, one.run.subnet.prefixlen), one.run.gateway) for one in picked
    )
    return Result(ips=ips, routes=ipam.routes, dns=dns)


def _ipam(config: Config) -> _Ipam:
    if config.ipam is None:
        raise CniError(Code.INVALID_CONFIG, "IPAM config missing 'ipam' key", key="ipam")
    return config.ipam


def _store(data_dir: str, call: Call[Config] | Call[DelConfig]) -> Store:
    data_dir = data_dir or DEFAULT_DATA_DIR
    if not os.path.isabs(data_dir) or "\0" in data_dir:
        msg = f'ipam.dataDir "{data_dir}" is not an absolute path'
        raise CniError(Code.INVALID_CONFIG, msg, key="ipam.dataDir")
    network = call.request.network
    if len(network) > _MAX_FILE_NAME:
        msg = f"network name {network[:_SHOWN]}... is too long"
        details = f"it names a folder: at most {_MAX_FILE_NAME} bytes"
        raise CniError(Code.INVALID_CONFIG, msg, details, key="name")
    return Store(data_dir, network)


def _sets(call: Call[Config]) -> tuple[RangeSet, ...]:
    return sets_of(call.config, call.request.cni_version)


def sets_of(config: Config, cni_version: str) -> tuple[RangeSet, ...]:
    """The range sets in the reference's order: of the runtime, of the older form, of `ranges`.

    Raises CniError 7.
    """
    return range_sets(_configured(config), cni_version)


def _configured(config: Config) -> list[tuple[tuple[RangeConfig, ...], str]]:
    """The same as they are written, each with its path."""
    ipam = _ipam(config)
    configured: list[tuple[tuple[RangeConfig, ...], str]] = [
        (ranges, f"runtimeConfig.ipRanges[{index}]")
        for index, ranges in enumerate(config.runtime_config.ip_ranges)
    ]
    if ipam.subnet is not None:
        older = RangeConfig(
            subnet=ipam.subnet,
            range_start=ipam.range_start,
            range_end=ipam.range_end,
            gateway=ipam.gateway,
        )
        configured.append(((older,), "ipam"))
    configured += [(ranges, f"ipam.ranges[{index}]") for index, ranges in enumerate(ipam.ranges)]
    return configured


def _requested(call: Call[Config]) -> list[IP]:
    """The addresses asked for, by CNI_ARGS, `args.cni.ips` and the capability `ips`."""
    asked = load_args(call.args, ("IP",)) if call.args else {}
    sources = [("CNI_ARGS IP", asked["IP"])] if "IP" in asked else []
    sources += [("args.cni.ips", one) for one in call.config.args.cni.ips]
    sources += [("runtimeConfig.ips", one) for one in call.config.runtime_config.ips]
    requested: dict[IP, None] = {}
    for source, text in sources:
        try:
            address = strip_prefix(text)
        except ValueError:
            msg = f"invalid IP address {text}"
            raise CniError(Code.INVALID_CONFIG, msg, f"in {source}") from None
        requested[address] = None
    return list(requested)


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


def _supersede(allocations: Looked, owner: Owner, sets: tuple[RangeSet, ...]) -> frozenset[IP]:
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
        held = [one for one in map(strip_prefix, entry.addresses) if _in_sets(sets, one)]
        if held:
            msg = (
                f"{held[0]} has been allocated to {owner.container_id}, "
                "duplicate allocation is not allowed"
            )
            where = entry.sandbox.path or "an unknown namespace"
            details = f"interface {owner.ifname} in {where}: DEL comes before the next ADD"
            raise CniError(Code.INTERNAL, msg, details)
    return frozenset(freed)


def _in_sets(sets: tuple[RangeSet, ...], address: IP) -> bool:
    return any(_run_of(ranges, address) is not None for ranges in sets)


def _wanted(sets: tuple[RangeSet, ...], requested: list[IP]) -> list[IP | None]:
    """Which of the requested addresses each set is to give. Raises CniError 7 where none can."""
    left = list(requested)
    wanted: list[IP | None] = []
    for index, ranges in enumerate(sets):
        address = next((one for one in left if _run_of(ranges, one) is not None), None)
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


def _pick_all(
    allocations: Looked,
    sets: tuple[RangeSet, ...],
    wanted: list[IP | None],
    before: frozenset[IP],
) -> list[_Picked]:
    """An address of each set: one requested, else one held before, else the next free one."""
    picked: list[_Picked] = []
    for index, (ranges, address) in enumerate(zip(sets, wanted, strict=True)):
        gateways = {one.gateway for one in ranges}
        usable = (one for one in before - gateways if _run_of(ranges, one) is not None)
        given = address or next(usable, None)
        if given is None:
            picked.append(_pick(allocations, index, ranges))
        else:
            picked.append(_pick_given(allocations, index, ranges, given))
    return picked


def _pick_given(allocations: Looked, index: int, ranges: RangeSet, address: IP) -> _Picked:
    run = _run_of(ranges, address)
    if run is None:
        raise ValueError(address)
    if not allocations.claim(run, address):
        msg = f"requested IP address {address} is not available in range set {describe(ranges)}"
        holder = allocations.holder(address)
        details = "" if holder is None else f"container {holder.container_id} holds it"
        raise CniError(Code.INTERNAL, msg, details)
    return _Picked(address, run, index)


def _pick(allocations: Looked, index: int, ranges: RangeSet) -> _Picked:
    """The next free address after the last one that was given, round the set."""
    for run, position in _free(allocations, index, ranges):
        address = run.address(position)
        if allocations.claim(run, address):
            return _Picked(address, run, index)
    raise _exhausted(index, ranges)


def _free(allocations: Looked, index: int, ranges: RangeSet) -> Iterator[tuple[Range, int]]:
    """Free places of a set from the one after the last reserved on, no gateway among them.

    When the bits say that the set is full, they are made anew: they may be behind the files.
    """
    gateways = {one.gateway for one in ranges}
    last = allocations.last_reserved(index)
    run = None if last is None else _run_of(ranges, last)
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


def _run_of(ranges: RangeSet, address: IP) -> Range | None:
    return next((one for one in ranges if one.position(address) is not None), None)


def _exhausted(index: int, ranges: RangeSet) -> CniError:
    msg = f"no IP addresses available in range set: {describe(ranges)}"
    total = sum(one.size for one in ranges)
    return CniError(Code.INTERNAL, msg, f"range set {index}: all of its {total} are taken")
