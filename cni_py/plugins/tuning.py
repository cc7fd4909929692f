"""tuning: set sysctls and attributes of the container's interface (6.4)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.kernel import addresses, kept_routes, links, state_files, sysctl
from cni_py.kernel.errors import KernelError, unavailable
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.errors import CniError, Code

from . import interface, records, sandbox, tuning_backup
from .teardown import Teardown
from .tuning_backup import Backup, SysctlValue
from .tuning_config import Config, DelConfig, mistakes, wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_py.kernel.links import Link
    from cni_py.kernel.netlink import Request
    from cni_py.kernel.netns import Netns
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

    from .tuning_config import Wanted
    from .tuning_sysctl import Sysctl

# Below this the kernel takes IPv6 off the interface (RFC 8200, section 5).
_IPV6_MTU = 1280
_DISABLES_IPV6 = "disable_ipv6"

__all__ = ["Config", "DelConfig", "add", "check", "delete", "gc", "mistakes", "status"]


def add(call: Call[Config]) -> Result:
    """Keep the present values, set the configured ones; returns the previous result with them."""
    result, target = interface.previous(call), wanted(call)
    _require_room_for_ipv6(call, result, target)
    container, inside = call.scope.enter_context(sandbox.opened(call))
    if not target.sysctls and not target.changes_link:
        return result
    with step("tuning"):
        link = links.get(inside, call.ifname)
        if link is None and target.changes_link:
            msg = f"interface {call.ifname} is not in {call.netns}"
            raise CniError(Code.INTERNAL, msg, "the plugin before in the chain creates it")
        before = _present(call, container, inside, link, target)
        _keep(call, container, link, target, before)
        _apply(container, inside, link, target)
        if before.own is not None and before.own.sysctls:
            _note_result(call, container, target)
    return _with_values(call, result, target)


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Give everything its former value, where there is a namespace left, and forget it."""
    path = tuning_backup.path_of(call.config.folder, call.attachment)
    _, backup = tuning_backup.read(path)
    if backup is not None:
        _restore_where_it_is(backup, call.netns, call.ifname)
    state_files.forget(path)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    result, target = interface.previous(call), wanted(call)
    _, backup = tuning_backup.read(tuning_backup.path_of(call.config.folder, call.attachment))
    own = None if backup is None else backup.own
    with sandbox.opened(call) as (container, inside):
        with container.entered():
            for one in target.sysctls:
                _check_sysctl(one, None if own is None else own.sysctls.get(one.path))
        if not target.changes_link and not isinstance(call.config.mtu, str):
            return
        link = links.get(inside, call.ifname)
        if link is None:
            raise interface.differs(f"interface {call.ifname}", "present", "missing")
        _check_link(link, target, _reported_mtu(call, result))


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed: a key, or the allowlist."""
    with unavailable():
        wanted(call)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Restore and forget what belongs to the attachments that the collection takes."""
    teardown = Teardown()
    network = call.request.network
    for path, backup, own in list(tuning_backup.of_network(call.config.folder, network)):
        if not collection.takes(f"former values in {path}", own.attachment, own.why_gone):
            continue
        with teardown.step():
            _restore_where_it_is(backup, "", own.ifname)
            state_files.forget(path)
    folder = call.config.folder
    valid = {os.path.basename(tuning_backup.path_of(folder, one)) for one in collection.valid or ()}
    for path in state_files.all_aside(folder):
        # Of whichever network it is, nobody reads it any more.
        if os.path.basename(path) in valid:
            continue
        if collection.takes_unowned(path, "it was damaged, and has been done without"):
            with teardown.step():
                state_files.discard(path)
    teardown.finish()


# ADD.


def _require_room_for_ipv6(call: Call[Config], result: Result, target: Wanted) -> None:
    if not 0 < target.mtu < _IPV6_MTU:
        return
    index = result.container_interface(call.ifname, call.netns)
    for one in result.ips:
        if one.address.version == 6 and one.interface in (None, index):
            msg = f"invalid mtu {target.mtu}: the interface has the address {one.address}"
            raise CniError(Code.INVALID_CONFIG, msg, f"IPv6 needs {_IPV6_MTU}")


def _present(
    call: Call[Config], container: Netns, inside: Netlink, link: Link | None, target: Wanted
) -> Backup:
    """The values that `target` would replace. Raises KernelError: a sysctl that is not there."""
    with container.entered():
        values = {
            one.path: SysctlValue(before=_readable(one.path), after=None) for one in target.sysctls
        }
    place = records.sandbox_of(container)
    if link is not None:
        place = msgspec.structs.replace(place, ifindex=link.ifindex)
    own = tuning_backup.of_attachment(call.attachment, place, values)
    if link is None:
        return Backup(own=own)
    if _turns_ipv6_off(target):
        routes = [one.body for one in _restorable(inside, link)]
        kept = tuple(addresses.snapshot(inside, link.ifindex))
        own = msgspec.structs.replace(own, addresses=kept, routes=tuple(routes))
    return Backup(
        mac=link.mac if target.mac else "",
        promisc=link.promiscuous if target.promisc else None,
        mtu=link.mtu if target.mtu else 0,
        allmulti=None if target.allmulti is None else link.all_multicast,
        tx_queue_length=None if target.queue_length is None else link.queue_length,
        own=own,
    )


def _keep(
    call: Call[Config], container: Netns, link: Link | None, target: Wanted, before: Backup
) -> None:
    """Write down the former values; from now on a failure brings back the present ones."""
    path = tuning_backup.path_of(call.config.folder, call.attachment)
    data, earlier = tuning_backup.read(path)
    earlier = None if earlier is None else _valid(earlier, container, link, target)

    def undo() -> None:
        _restore(container, call.ifname, before)
        if earlier is None:
            state_files.forget(path)
        else:
            state_files.save(path, data)

    call.scope.enter_context(undone_on_failure(undo))
    tuning_backup.write(path, before if earlier is None else _merged(earlier, before))


def _valid(earlier: Backup, container: Netns, link: Link | None, target: Wanted) -> Backup | None:
    """What of a file an ADD before this one has written of what is there now (W-TU3).

    The reference's file does not say of what it is: it counts if the interface has by now what is
    asked for.
    """
    own = earlier.own
    if own is not None:
        if not tuning_backup.is_of(own, container):
            return None
        if link is not None and own.sandbox.ifindex not in (0, link.ifindex):
            # Another interface of that name: what is not of it stays.
            rest = {
                path: value
                for path, value in own.sysctls.items()
                if link.name not in path.split("/")
            }
            own = msgspec.structs.replace(own, sysctls=rest, addresses=(), routes=())
            return Backup(own=own)
        return earlier
    if link is None or not target.changes_link:
        return None
    try:
        _check_link(link, target, 0)
    except CniError:
        return None
    return earlier


def _merged(earlier: Backup, before: Backup) -> Backup:
    """The oldest value of each: what an ADD before this one has set is no former value."""
    own, former = before.own, earlier.own
    if own is not None and former is not None:
        own = msgspec.structs.replace(
            own,
            sysctls=own.sysctls | former.sysctls,
            addresses=former.addresses or own.addresses,
            routes=former.routes or own.routes,
        )
    return Backup(
        mac=earlier.mac or before.mac,
        promisc=before.promisc if earlier.promisc is None else earlier.promisc,
        mtu=earlier.mtu or before.mtu,
        allmulti=before.allmulti if earlier.allmulti is None else earlier.allmulti,
        tx_queue_length=(
            before.tx_queue_length if earlier.tx_queue_length is None else earlier.tx_queue_length
        ),
        own=own,
    )


def _apply(container: Netns, inside: Netlink, link: Link | None, target: Wanted) -> None:
    """Sysctls first, then the interface. Raises KernelError for the first that is refused."""
    with container.entered():
        for one in target.sysctls:
            _write(one.path, one.value)
    if link is not None:
        inside.submit(
            *_requests(
                link.name,
                mac=target.mac,
                promisc=target.promisc or None,
                mtu=target.mtu,
                allmulti=target.allmulti,
                queue_length=target.queue_length,
            )
        )


def _note_result(call: Call[Config], container: Netns, target: Wanted) -> None:
    """Write down how the values read that were set: the kernel has forms of its own."""
    path = tuning_backup.path_of(call.config.folder, call.attachment)
    _, backup = tuning_backup.read(path)
    if backup is None or backup.own is None:
        return
    values = dict(backup.own.sysctls)
    with container.entered():
        for one in target.sysctls:
            before = values[one.path].before
            values[one.path] = SysctlValue(before=before, after=_readable(one.path))
    own = msgspec.structs.replace(backup.own, sysctls=values)
    tuning_backup.write(path, msgspec.structs.replace(backup, own=own))


def _with_values(call: Call[Config], result: Result, target: Wanted) -> Result:
    """The result with what has changed of the interface; those of other sandboxes stay (W-TU5)."""
    index = result.container_interface(call.ifname, call.netns)
    if index is None or not (target.mac or target.mtu):
        return result
    entries = list(result.interfaces)
    have = entries[index]
    entries[index] = msgspec.structs.replace(
        have, mac=target.mac or have.mac, mtu=target.mtu or have.mtu
    )
    return msgspec.structs.replace(result, interfaces=tuple(entries))


# DEL.


def _restore_where_it_is(backup: Backup, netns: str, ifname: str) -> None:
    """Restore, unless the namespace is gone: another one may be at its path. Raises CniError."""
    if backup.own is None:
        container = open_netns(netns) if netns else None
    elif backup.own.boot == records.boot_id():
        container = records.find(backup.own.sandbox, netns)
    else:
        container = None
    if container is not None:
        with container, step("tuning"):
            _restore(container, ifname, backup)


def _restore(container: Netns, ifname: str, backup: Backup) -> None:
    """Set everything as it was: all is tried. Raises CniError at the end.

    What is of an interface that has been replaced since is left.
    """
    own = backup.own
    teardown = Teardown()
    with container.entered():
        inside = Netlink()
    with inside:
        link = links.get(inside, ifname)
        is_same = link is not None and own is None
        if link is not None and own is not None:
            is_same = own.sandbox.ifindex in (0, link.ifindex)
        if own is not None:
            for path, value in reversed(own.sysctls.items()):
                if value.before is not None and (is_same or ifname not in path.split("/")):
                    with teardown.step(), container.entered():
                        _write_back(path, value.before)
        if link is not None and is_same:
            for request in _former(link.name, backup):
                with teardown.step():
                    inside.submit(request)
            if own is not None:
                with teardown.step():
                    _put_back(inside, link, own.addresses, own.routes)
    teardown.finish()


def _former(name: str, backup: Backup) -> list[Request]:
    return _requests(
        name,
        mac=backup.mac,
        promisc=backup.promisc,
        mtu=backup.mtu,
        allmulti=backup.allmulti,
        queue_length=backup.tx_queue_length,
    )


def _put_back(inside: Netlink, link: Link, kept: Sequence[bytes], routes: Sequence[bytes]) -> None:
    flags = addresses.IFA_F_NODAD
    requests = [addresses.put_back(link.ifindex, link.name, one, flags=flags) for one in kept]
    known = kept_routes.in_order([kept_routes.read(one) for one in routes])
    inside.submit(*requests, *(kept_routes.put_back(one, where_possible=True) for one in known))


# Both.


def _requests(
    name: str,
    *,
    mac: str,
    promisc: bool | None,
    mtu: int,
    allmulti: bool | None,
    queue_length: int | None,
) -> list[Request]:
    """What sets attributes, in the reference's order; what is `""`, 0 or None is left."""
    requests = []
    if mac:
        what = f"set the hardware address of {name} to {mac}"
        requests.append(links.change(name, ("IFLA_ADDRESS", mac), what=what))
    if promisc is not None:
        requests.append(_flag(name, links.IFF_PROMISC, on=promisc))
    if mtu:
        what = f"set the mtu of {name} to {mtu}"
        requests.append(links.change(name, ("IFLA_MTU", mtu), what=what))
    if allmulti is not None:
        requests.append(_flag(name, links.IFF_ALLMULTI, on=allmulti))
    if queue_length is not None:
        what = f"set the transmit queue of {name} to {queue_length}"
        requests.append(links.change(name, ("IFLA_TXQLEN", queue_length), what=what))
    return requests


def _flag(name: str, flag: int, *, on: bool) -> Request:
    return links.set_flags(name, flag if on else 0, flag)


def _turns_ipv6_off(target: Wanted) -> bool:
    off = any(one.parts[-1] == _DISABLES_IPV6 for one in target.sysctls)
    return off or 0 < target.mtu < _IPV6_MTU


def _restorable(inside: Netlink, link: Link) -> list[kept_routes.KeptRoute]:
    """The interface's routes that the kernel does not make by itself."""
    routes = kept_routes.snapshot(inside, link.ifindex)
    return [one for one in routes if not one.is_made_by_itself]


def _readable(path: str) -> str | None:
    """The value, None for a sysctl that can only be written. Raises KernelError."""
    try:
        return sysctl.read(path)
    except KernelError as error:
        if error.errno == errno.EACCES:
            return None
        raise


def _write(path: str, value: str) -> None:
    # Nothing at all would not be noticed.
    sysctl.write(path, value or "\n")


def _write_back(path: str, value: str) -> None:
    """The interface that it was of may be gone."""
    try:
        _write(path, value)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise


# CHECK.


def _check_sysctl(one: Sysctl, kept: SysctlValue | None) -> None:
    value = _readable(one.path)
    # The kernel separates numbers by tabs, and has its own form of lists.
    same = value is None or value.split() == one.value.split()
    if not same and (kept is None or kept.after != value):
        raise interface.differs(f"sysctl {one.key}", f'"{one.value}"', f'"{value}"')


def _check_link(link: Link, target: Wanted, reported_mtu: int) -> None:
    """Whether the interface is as asked for. Raises CniError."""
    wanted_mtu = target.mtu or reported_mtu
    fields: tuple[tuple[str, Any, Any], ...] = (
        ("mac", target.mac or None, link.mac),
        ("promisc", target.promisc or None, link.promiscuous),
        ("mtu", wanted_mtu or None, link.mtu),
        ("allmulti", target.allmulti, link.all_multicast),
        ("txQLen", target.queue_length, link.queue_length),
    )
    for name, expected, found in fields:
        if expected is not None:
            interface.require_same(f"{name} of interface {link.name}", expected, found)


def _reported_mtu(call: Call[Config], result: Result) -> int:
    """What ADD made of `auto`: uplinks change."""
    index = result.container_interface(call.ifname, call.netns)
    if index is None or not isinstance(call.config.mtu, str):
        return 0
    return result.interfaces[index].mtu
