"""host-local: addresses from ranges that this host alone gives out (plugins.md 5.1)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.kernel import interruption, state_files
from cni_py.kernel.errors import unavailable
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.addresses import IP, Cidr, cidr
from cni_py.spec.attachment import Attachment
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, refusals
from cni_py.spec.names import validate_new_ifname
from cni_py.spec.results import DNS, IPConfig, Result, Route

from .allocating import (
    ExhaustedError,
    claim,
    free,
    in_sets,
    pick_all,
    requested,
    supersede,
    wanted_of,
)
from .index import Owner
from .ranges import RangeConfig, RangeSet, range_mistakes, range_sets
from .resolv_conf import read_resolv_conf
from .store import DEFAULT_DATA_DIR, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection

    from .allocating import Picked
    from .index import Entry

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
    wanted = wanted_of(sets, requested(call))
    validate_new_ifname(call.ifname)
    dns = read_resolv_conf(ipam.resolv_conf) if ipam.resolv_conf else DNS()
    owner = Owner(call.container_id, call.ifname)
    store = store_of(ipam.data_dir, call)
    with store.locked() as allocations:
        before = supersede(allocations, owner, sets)
        picked = claim(allocations, owner, call.netns, sets, wanted, before=before)
    call.scope.enter_context(undone_on_failure(lambda: _release(store, owner)))
    return _result(ipam, picked, dns)


def plan(call: Call[Config]) -> Result:
    """What ADD would give now, if nobody else is faster. Changes nothing; raises what ADD does."""
    ipam = _ipam(call.config)
    sets = _sets(call)
    wanted = wanted_of(sets, requested(call))
    dns = read_resolv_conf(ipam.resolv_conf) if ipam.resolv_conf else DNS()
    peek = store_of(ipam.data_dir, call).peek()
    before = supersede(peek, Owner(call.container_id, call.ifname), sets)
    return _result(ipam, pick_all(peek, sets, wanted, before), dns)


def delete(call: Call[DelConfig]) -> None:
    """Free what the attachment holds, whatever the ranges are now."""
    store = store_of(call.config.ipam.data_dir, call)
    _release(store, Owner(call.container_id, call.ifname))


def check(call: Call[Config]) -> None:
    """Whether each address of the previous result that is ours to give is still this owner's."""
    ipam = _ipam(call.config)
    sets = _sets(call)
    owner = Owner(call.container_id, call.ifname)
    store = store_of(ipam.data_dir, call)
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
            if in_sets(sets, address) and holder != held.owner:
                names = "nobody" if holder is None else f"container {holder.container_id}"
                msg = f"host-local: address {address} is not allocated to {call.container_id}"
                raise CniError(Code.INTERNAL, msg, f"its file names {names}")


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when a range set has no address left, or the folder cannot be used."""
    ipam = _ipam(call.config)
    sets = _sets(call)
    store = store_of(ipam.data_dir, call)
    with unavailable():
        store.require_room()
    with unavailable(), store.locked() as allocations:
        for index, ranges in enumerate(sets):
            if next(free(allocations, index, ranges), None) is None:
                raise ExhaustedError(index, ranges)


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host, unless the runtime brings ranges that make up for it."""
    config = call.config
    if config.ipam is None:
        yield from refusals("ipam", _ipam, config)
        return
    ranges = _configured(config)
    if ranges or not config.capabilities.get("ipRanges", False):
        yield from range_mistakes(ranges, call.request.cni_version)
    yield from refusals("ipam.dataDir", store_of, config.ipam.data_dir, call)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Free the addresses of the attachments that the collection takes."""
    store = store_of(call.config.ipam.data_dir, call)
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


def _result(ipam: _Ipam, picked: list[Picked], dns: DNS) -> Result:
    ips = tuple(
        IPConfig(cidr(one.address, one.run.subnet.prefixlen), one.run.gateway) for one in picked
    )
    return Result(ips=ips, routes=ipam.routes, dns=dns)


def _ipam(config: Config) -> _Ipam:
    if config.ipam is None:
        raise CniError(Code.INVALID_CONFIG, "IPAM config missing 'ipam' key", key="ipam")
    return config.ipam


def store_of(data_dir: str, call: Call[Any]) -> Store:
    """The network's allocations. Raises CniError 7 for what is no folder's path."""
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
