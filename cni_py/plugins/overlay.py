"""overlay: connect a container to the cluster's network, with an address of the node's subnet.

The node's lease says which subnet that is; bridge or ptp makes the interface, host-local gives the
address. The configuration is that of flannel's plugin. What was delegated is kept in a record, so
that DEL undoes what ADD did, whatever the lease and the configuration are by then.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.cluster import lease_file
from cni_py.kernel import state_files
from cni_py.kernel.errors import kernel_error, unavailable
from cni_py.kernel.netns import open_netns
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.addresses import parse_cidr
from cni_py.spec.errors import CniError, Code, require_none
from cni_py.spec.names import validate_new_ifname

from . import interface, overlay_gateways, records
from .evidence import Evidence
from .overlay_config import (
    DELEGATES,
    MODULES,
    Config,
    DelConfig,
    as_request,
    document,
    kept,
    mistakes,
    passed_on,
)
from .teardown import Teardown

if TYPE_CHECKING:
    from cni_py.cluster.lease_file import Lease
    from cni_py.spec.call import Call, Request
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

__all__ = ["Config", "DelConfig", "add", "check", "delete", "gc", "mistakes", "status"]

_SHOWN = 3


class Record(records.Record, frozen=True, kw_only=True):
    """What ADD delegated, and the subnets that the node had."""

    delegate: dict[str, Any]
    subnets: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The delegate's type."""
        return str(self.delegate.get("type", ""))


RECORDS = records.Records("/run/cni-py/overlay", Record)


def add(call: Call[Config]) -> Result:
    """Have the delegate attach the container with an address of the node's subnets."""
    config, request = call.config, call.request
    validate_new_ifname(call.ifname)
    require_none(mistakes(call))
    lease = lease_file.read(config.path)
    made = document(request, config.delegate_type, config.delegate, lease)
    _require_masquerading(request, made)
    earlier = RECORDS.load(call.attachment)
    if earlier is not None and earlier.why_gone():
        # A runtime that has lost its state: another plugin may have made what is left.
        delete(call)
        earlier = None
    attached = False

    def undo() -> None:
        if attached:
            delete(call)
        elif earlier is not None:
            RECORDS.save(earlier)
        else:
            # The delegate has undone its own.
            RECORDS.drop(call.attachment)

    call.scope.enter_context(undone_on_failure(undo))
    _record(call, made, lease)
    if config.delegate_type == "bridge" and DELEGATES.find(request, "bridge")[0] is not None:

        def used() -> set[str]:
            return {subnet for one in _live(request.network) for subnet in one.subnets}

        bridge = made.get("bridge", "cni0")
        overlay_gateways.make_room(request.network, bridge, lease.subnets, used)
    result = DELEGATES.add(as_request(request, made), config.delegate_type)
    attached = True
    return result


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Have the delegate that ADD used undo it. The record goes when that has succeeded."""
    record = RECORDS.load(call.attachment)
    path = f"{call.config.data_dir}/{call.container_id}"
    flannels = None if record is not None else _of_flannel(path, call.request.network)
    if record is not None:
        made = passed_on(record.delegate, call.request)
    elif flannels is not None:
        made = passed_on(flannels, call.request)
    else:
        made = _now(call)
    DELEGATES.delete(as_request(call.request, made), made["type"])
    RECORDS.drop(call.attachment)
    if flannels is not None:
        state_files.discard(path)


def check(call: Call[Config]) -> None:
    """Compare with what ADD set, and with the subnets that the node has. Raises CniError."""
    config = call.config
    require_none(mistakes(call))
    lease = _lease_or_none(config.path)
    record = RECORDS.load(call.attachment)
    if record is not None:
        made = passed_on(record.delegate, call.request)
    else:
        lease = lease or lease_file.read(config.path)
        made = document(call.request, config.delegate_type, config.delegate, lease)
    DELEGATES.check(as_request(call.request, made), made["type"])
    result, index = interface.listed(call)
    if lease is None:
        return
    for one in result.ips:
        own = [other for other in lease.subnets if one.address.ip in other.network]
        if one.interface in (None, index) and not own:
            subnets = " and ".join(str(other.network) for other in lease.subnets)
            raise interface.differs("this node's subnet", f"that of {one.address}", subnets)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, 51 where containers are cut off."""
    config = call.config
    with unavailable():
        require_none(mistakes(call))
    problem = lease_file.problem(config.path)
    if problem is not None and problem.code == Code.PLUGIN_NOT_AVAILABLE:
        raise problem
    with unavailable():
        lease = lease_file.read(config.path)
        made = document(call.request, config.delegate_type, config.delegate, lease)
        _require_masquerading(call.request, made)
    DELEGATES.status(as_request(call.request, made), made["type"])
    if problem is not None:
        raise problem
    _require_own_subnets(call.request.network, lease)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Have each delegate that the network has used take away what the collection takes."""
    teardown = Teardown()
    evidence = Evidence()
    of_network = [one for one in RECORDS.every() if one.network == collection.network]
    delegates = {one.kind: one.delegate for one in of_network}
    delegates.setdefault(call.config.delegate_type, kept(_now(call)))
    for kind, delegate in delegates.items():
        with teardown.step():
            made = passed_on(delegate, call.request)
            DELEGATES.gc(as_request(call.request, made), kind, collection)
    # What the delegate could not take away keeps its record.
    teardown.finish()
    for one in RECORDS.taken(collection, "record of overlay", evidence.against_record):
        RECORDS.drop(one.attachment)


def _require_masquerading(request: Request, made: dict[str, Any]) -> None:
    """Raises CniError 7 where the delegate would masquerade what stays in the cluster, too."""
    kind = made["type"]
    if kind not in MODULES or made.get("ipMasq") is not True:
        return
    plugin, path = DELEGATES.find(request, kind)
    if plugin is None:
        msg = f"{path} would masquerade what stays in the cluster: it is not cni-py's"
        details = 'set "ipMasq": false in `delegate`, and masquerade otherwise'
        raise CniError(Code.INVALID_CONFIG, msg, details, key="delegate.ipMasq")


# ADD.


def _record(call: Call[Config], made: dict[str, Any], lease: Lease) -> None:
    with interface.require_netns(call, open_netns(call.netns)) as container:
        sandbox = records.sandbox_of(container)
    subnets = tuple(str(one.network) for one in lease.subnets)
    RECORDS.save(
        Record(attachment=call.attachment, sandbox=sandbox, delegate=kept(made), subnets=subnets)
    )


# DEL.


def _now(call: Call[Config] | Call[DelConfig]) -> dict[str, Any]:
    """The delegate's configuration by what there is now, where nobody knows what ADD used."""
    config = call.config
    lease = _lease_or_none(config.path)
    return document(call.request, config.delegate_type, config.delegate, lease)


def _lease_or_none(path: str) -> Lease | None:
    try:
        return lease_file.read(path)
    except CniError:
        return None


def _of_flannel(path: str, network: str) -> dict[str, Any] | None:
    """What flannel's plugin delegated, if the container is one of its; its files name no ifname."""
    try:
        if not os.path.isfile(path):
            return None
        found = msgspec.json.decode(state_files.content(path))
    except (state_files.DamagedError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error
    is_one = isinstance(found, dict) and found.get("name") == network
    return found if is_one and isinstance(found.get("type"), str) else None


# STATUS.


def _live(network: str) -> list[Record]:
    """The records of the network's containers that have not evidently gone."""
    return [one for one in RECORDS.every() if one.network == network and not one.why_gone()]


def _require_own_subnets(network: str, lease: Lease) -> None:
    """Raises CniError 51 where containers have addresses of a subnet that the node has no more."""
    own = {one.network for one in lease.subnets}
    lost = [
        one
        for one in _live(network)
        if not own.issuperset(parse_cidr(subnet).network for subnet in one.subnets)
    ]
    if lost:
        ids = ", ".join(sorted(one.container_id for one in lost)[:_SHOWN])
        msg = f"{len(lost)} containers have addresses of a subnet that this node no longer has"
        raise CniError(Code.LIMITED_CONNECTIVITY, msg, f"start them anew: {ids}")
