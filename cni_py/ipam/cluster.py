"""cluster: addresses of a network that several nodes share, out of blocks that this node has.

`cni-py agent` claims the blocks ahead (docs/decisions/0046-cluster-ipam.md); what is given out of
them is allocated here alone, as host-local does it, and no call asks another node or a store.
"""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.cluster import pool_file
from cni_py.cluster.pool_file import PoolFile, User
from cni_py.kernel.errors import unavailable
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.addresses import cidr
from cni_py.spec.args import load_args
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, refusals, require_none
from cni_py.spec.names import validate_network_name, validate_new_ifname
from cni_py.spec.results import DNS, IPConfig, Result, Route

from . import allocating, host_local
from .index import Owner
from .ranges import Range
from .resolv_conf import read_resolv_conf
from .sticky import Names
from .store import DEFAULT_DATA_DIR, INDEX_DIR, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import IP
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection

    from .allocating import Picked
    from .ranges import RangeSet

NAME = "cluster"

_POD = ("K8S_POD_NAMESPACE", "K8S_POD_NAME")
_MOST_NAME_LETTERS = 512
_MOST_STICKY_SECONDS = 366 * 24 * 3600


class _Ipam(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The `ipam` key."""

    type: str = NAME
    """`cluster`."""
    pools: tuple[str, ...] = ()
    """The pools' names: one address of each is given out."""
    routes: tuple[Route, ...] = ()
    """Routes that become part of the result."""
    data_dir: str = DEFAULT_DATA_DIR
    """Where allocations are kept: an absolute path."""
    resolv_conf: str = ""
    """A resolv.conf whose content becomes `dns`."""
    sticky_seconds: int = 0
    """For how long a name's addresses are kept for it after its container has gone; 0: not at all.
    The name is `args.cni.name`, else the pod's.
    """


class _RuntimeConfig(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What the capability `ips` brings."""

    ips: tuple[str, ...] = ()
    """The capability `ips`: addresses to have; a prefix length is ignored."""


class _CniArgs(msgspec.Struct, frozen=True, kw_only=True):
    ips: tuple[str, ...] = ()
    """Addresses to have; a prefix length is ignored."""
    name: str = ""
    """The name that addresses are kept for, with `stickySeconds`."""


class _Args(msgspec.Struct, frozen=True, kw_only=True):
    cni: _CniArgs = _CniArgs()
    """Arguments for CNI plugins."""


class Config(PluginConfig, frozen=True, kw_only=True):
    """cluster's configuration."""

    ipam: _Ipam = _Ipam()
    """Which pools addresses are given out of."""
    runtime_config: _RuntimeConfig = _RuntimeConfig()
    """What the capabilities bring."""
    args: _Args = _Args()
    """What the runtime passes in `args.cni`."""


DelConfig = host_local.DelConfig


def add(call: Call[Config]) -> Result:
    """One address of each pool, out of this node's blocks."""
    ipam = call.config.ipam
    require_none(mistakes(call))
    validate_new_ifname(call.ifname)
    name = _name(call)
    asked = allocating.requested(call)
    dns = read_resolv_conf(ipam.resolv_conf) if ipam.resolv_conf else DNS()
    owner = Owner(call.container_id, call.ifname)
    store = host_local.store_of(ipam.data_dir, call)
    for pool in ipam.pools:
        pool_file.held(pool)
        pool_file.use(pool, User(call.request.network, store.folder))
    with store.locked() as allocations:
        # Under the lock: the agent takes it before it gives a block away.
        pools = [pool_file.held(pool) for pool in ipam.pools]
        sets = tuple(map(set_of, pools))
        wanted = allocating.wanted_of(sets, asked)
        before = allocating.supersede(allocations, owner, sets)
        names = _names(ipam, store)
        had = {one for one in names.of(name) if allocations.holder(one) is None}
        avoided = names.of_others(name)
        try:
            picked = allocating.claim(
                allocations,
                owner,
                call.netns,
                sets,
                wanted,
                before=before or frozenset(had),
                avoided=avoided,
            )
        except allocating.ExhaustedError as error:
            raise _exhausted(pools[error.set_index], avoided) from error
        try:
            if name:
                names.has(name, owner, [one.address for one in picked], ipam.sticky_seconds)
            names.save()
        except BaseException:
            allocations.give_back(owner)
            raise
    call.scope.enter_context(undone_on_failure(lambda: _release(store, owner)))
    return _result(ipam, pools, picked, dns)


def plan(call: Call[Config]) -> Result:
    """What ADD would give now, if nobody else is faster. Changes nothing; raises what ADD does."""
    ipam = call.config.ipam
    require_none(mistakes(call))
    store = host_local.store_of(ipam.data_dir, call)
    pools = [pool_file.held(pool) for pool in ipam.pools]
    sets = tuple(map(set_of, pools))
    wanted = allocating.wanted_of(sets, allocating.requested(call))
    name, peek, names = _name(call), store.peek(), _names(ipam, store)
    before = allocating.supersede(peek, Owner(call.container_id, call.ifname), sets)
    had = frozenset(one for one in names.of(name) if peek.holder(one) is None)
    avoided = names.of_others(name)
    picked = allocating.pick_all(peek, sets, wanted, before or had, avoided)
    return _result(ipam, pools, picked, DNS())


def delete(call: Call[DelConfig]) -> None:
    """Free what the attachment holds, whatever the pools are now; its name keeps it for a time."""
    store = host_local.store_of(call.config.ipam.data_dir, call)
    _release(store, Owner(call.container_id, call.ifname))


def check(call: Call[Config]) -> None:
    """Whether each address of the previous result is this owner's, and in a block of this node."""
    require_none(mistakes(call))
    owner = Owner(call.container_id, call.ifname)
    store = host_local.store_of(call.config.ipam.data_dir, call)
    msg = f"cluster: no address is allocated to {call.container_id}"
    if not store.exists:
        raise CniError(Code.INTERNAL, msg, f"{store.folder} does not exist")
    pools = [found for pool in call.config.ipam.pools if (found := pool_file.read(pool))]
    sets = tuple(map(set_of, pools))
    networks = [ip_network(one.network) for one in pools]
    with store.locked() as allocations:
        if allocations.entry(owner) is None:
            raise CniError(Code.INTERNAL, msg, f"no file in {store.folder} names it")
        for one in () if call.prev_result is None else call.prev_result.ips:
            address = one.address.ip
            if not any(address in network for network in networks):
                continue
            if allocations.holder(address) != owner:
                msg = f"cluster: address {address} is not allocated to {call.container_id}"
                raise CniError(Code.INTERNAL, msg, f"see {store.folder}")
            if not allocating.in_sets(sets, address):
                msg = f"cluster: address {address} is in no block that this node has any more"
                raise CniError(Code.INTERNAL, msg, "another node may give it out: start it anew")


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, 51 where containers may be cut off."""
    ipam = call.config.ipam
    with unavailable():
        require_none(mistakes(call))
        store = host_local.store_of(ipam.data_dir, call)
        store.require_room()
        pools = [pool_file.held(pool) for pool in ipam.pools]
        sets = tuple(map(set_of, pools))
        with store.locked() as allocations:
            kept = _names(ipam, store).of_others("")
            for index, (told, ranges) in enumerate(zip(pools, sets, strict=True)):
                free = allocating.free(allocations, index, ranges)
                if all(run.address(position) in kept for run, position in free):
                    raise _exhausted(told, kept)
            holders = [str(one) for one in _outside(allocations.entries(), pools)]
    for one in pools:
        if one.code:
            raise CniError(one.code, one.msg, one.details)
    if holders:
        msg = f"{len(holders)} addresses are in blocks that this node no longer has"
        details = f"another node may give them out: {', '.join(sorted(holders)[:3])}"
        raise CniError(Code.LIMITED_CONNECTIVITY, msg, details)


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    ipam = call.config.ipam
    if not ipam.pools:
        msg = "cluster needs the name of a pool: ipam.pools is missing"
        yield CniError(Code.INVALID_CONFIG, msg, '"pools": ["lan"]', key="ipam.pools")
    if len(set(ipam.pools)) < len(ipam.pools):
        msg = "ipam.pools has a pool twice"
        yield CniError(Code.INVALID_CONFIG, msg, "one address of each is given", key="ipam.pools")
    for index, pool in enumerate(ipam.pools):
        yield from refusals(f"ipam.pools[{index}]", _require_name, pool)
    if not 0 <= ipam.sticky_seconds <= _MOST_STICKY_SECONDS:
        msg = f"ipam.stickySeconds is {ipam.sticky_seconds}"
        details = f"it is 0 to {_MOST_STICKY_SECONDS}"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="ipam.stickySeconds")
    yield from refusals("ipam.dataDir", host_local.store_of, ipam.data_dir, call)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Free the addresses of the attachments that the collection takes."""
    host_local.gc(call, collection)
    store = host_local.store_of(call.config.ipam.data_dir, call)
    index = _index(call.config.ipam.data_dir, call.request.network)
    if collection.dry or not store.exists or not Names.are_in(index):
        return
    with store.locked() as allocations:
        names = Names(index)
        names.leave(lambda owner: allocations.entry(owner) is None)
        names.save()


def _result(ipam: _Ipam, pools: list[PoolFile], picked: list[Picked], dns: DNS) -> Result:
    ips = tuple(
        IPConfig(cidr(one.address, one.run.subnet.prefixlen), _gateway(pools[one.set_index]))
        for one in picked
    )
    return Result(ips=ips, routes=ipam.routes, dns=dns)


def _release(store: Store, owner: Owner) -> None:
    if not store.exists:
        return
    with store.locked() as allocations:
        allocations.release(owner)
        data_dir, network = os.path.split(store.folder)
        if Names.are_in(index := _index(data_dir, network)):
            names = Names(index)
            names.leave(lambda other: other == owner)
            names.save()


def _names(ipam: _Ipam, store: Store) -> Names:
    return Names(_index(ipam.data_dir, os.path.basename(store.folder)))


def _index(data_dir: str, network: str) -> str:
    return os.path.join(data_dir or DEFAULT_DATA_DIR, INDEX_DIR, network)


def _name(call: Call[Config]) -> str:
    """Whom addresses are kept for, with the interface; `""` for nobody. Raises CniError 7."""
    if not call.config.ipam.sticky_seconds:
        return ""
    name = call.config.args.cni.name
    if not name and call.args:
        asked: dict[str, Any] = load_args(call.args, _POD)
        pod = [asked.get(one, "") for one in _POD]
        name = "/".join(pod) if all(pod) else ""
    if len(name) > _MOST_NAME_LETTERS:
        msg = f"args.cni.name has {len(name)} letters"
        raise CniError(Code.INVALID_CONFIG, msg, f"at most {_MOST_NAME_LETTERS}")
    return f"{name} {call.ifname}" if name else ""


def set_of(told: PoolFile) -> RangeSet:
    """The node's blocks as a range set; of a pool without a gateway it is out of reach of any."""
    network = ip_network(told.network)
    gateway = _gateway(told) or network.network_address
    return tuple(Range(network, first, last, gateway) for first, last in told.runs)


def _gateway(told: PoolFile) -> IP | None:
    return ip_address(told.gateway) if told.gateway else None


def _exhausted(told: PoolFile, kept: frozenset[IP]) -> CniError:
    """The refusal where a pool has nothing left on this node: it says who is to help."""
    number = len(told.blocks)
    msg = f'no address is left in the {number} blocks that this node has of pool "{told.pool}"'
    details = "cni-py agent claims another block"
    if told.is_full:
        details = "every block is some node's: other nodes are asked for what they do not use"
    sets = (set_of(told),)
    mine = sum(1 for one in kept if allocating.in_sets(sets, one))
    if mine:
        details += f"; {mine} addresses are kept for names"
    return CniError(Code.TRY_AGAIN_LATER, msg, details)


def _outside(entries: list[Any], pools: list[PoolFile]) -> Iterator[IP]:
    """The addresses of the pools' networks that are in no block of this node."""
    sets = tuple(map(set_of, pools))
    networks = [ip_network(one.network) for one in pools]
    for entry in entries:
        for address in map(ip_address, entry.addresses):
            if any(address in one for one in networks) and not allocating.in_sets(sets, address):
                yield address


def _require_name(pool: str) -> None:
    try:
        validate_network_name(pool)
    except CniError:
        msg = f'"{pool[:40]}" is no name of a pool'
        details = "a letter or digit, then any of those and `_`, `.`, `-`"
        raise CniError(Code.INVALID_CONFIG, msg, details) from None
