"""Giving a device back to the host: found by what it is, made what it was."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni_py.kernel import addresses, links
from cni_py.kernel.netlink import RTMGRP_LINK, Netlink
from cni_py.kernel.netns import open_netns, open_own
from cni_py.spec.errors import CniError, Code
from cni_py.spec.names import validate_device_name

from .host_device_record import RECORDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_py.kernel.links import Link
    from cni_py.kernel.netns import Netns

    from .host_device_record import Record

# The kernel takes a namespace down after its last user has gone, and returns hardware meanwhile.
_RETURN_SECONDS = 1.0


def restore(host: Netlink, record: Record, netns: str) -> None:
    """Move the recorded device out of its container, or find it on the host, and restore it.

    The record is dropped when there is nothing left to do. One of hardware that is nowhere to be
    found is kept: the namespace that has it may end later. Raises CniError.
    """
    link = _take_out(host, record, dict.fromkeys((netns, record.sandbox.path)))
    if link is None:
        link = _on_host(host, record)
    if link is None and record.is_hardware:
        return
    if link is not None:
        _finish(host, link, record)
    RECORDS.drop(record.attachment)


def reclaim(host: Netlink, name: str) -> Link | None:
    """The device of that name, which is on the host under another one.

    Its namespace ended without a DEL, and the kernel returned it. Raises CniError.
    """
    for record in RECORDS.every():
        if record.name == name and record.is_hardware:
            link = next((one for one in links.dump(host) if record.is_same(one)), None)
            if link is not None:
                _finish(host, link, record)
                RECORDS.drop(record.attachment)
                return links.get(host, name)
    return None


def restore_foreign(host: Netlink, container: Netns, ifname: str, device: str, mac: str) -> None:
    """Move a device out that the reference has moved in: it notes the name as the alias.

    After a change of name, of alias or of both, the hardware address in the previous result and the
    configuration's name tell of it. It is left down, as the reference leaves it. Raises CniError.
    """
    with container.entered():
        inside = Netlink()
    with inside:
        for link in links.dump(inside):
            known = bool(mac) and link.mac == mac.lower()
            name = _device_name(link.alias) or (device if known else "")
            if name and (known or link.name == ifname):
                _require_free(host, name, link)
                _move_out(inside, link, name, "")
                return


def is_inside(inside: Netlink, record: Record) -> Link | None:
    """The recorded device in the namespace that it was moved to."""
    if record.sandbox.ifindex:
        return links.get_by_index(inside, record.sandbox.ifindex)
    return next((one for one in links.dump(inside) if record.is_same(one)), None)


def _take_out(host: Netlink, record: Record, paths: Iterable[str]) -> Link | None:
    """Move the device from its container to the host; None if it is not there."""
    for path in filter(None, paths):
        container = open_netns(path)
        if container is None:
            continue
        with container:
            if not record.sandbox.is_it(container):
                continue
            with container.entered():
                inside = Netlink()
            with inside:
                link = is_inside(inside, record)
                if link is None:
                    return None
                _require_free(host, record.name, link)
                _move_out(inside, link, record.name, record.alias)
        return links.get(host, record.name)
    return None


def _move_out(inside: Netlink, link: Link, name: str, alias: str) -> None:
    with open_own() as home:
        inside.submit(links.move(link, home.fd, name, alias))


def _on_host(host: Netlink, record: Record) -> Link | None:
    """The device on the host, under whatever name; hardware may be on its way there."""
    with Netlink(RTMGRP_LINK) as events:
        reports = events.events(time.monotonic() + _RETURN_SECONDS)
        while True:
            link = next((one for one in links.dump(host) if record.is_same(one)), None)
            if link is not None or not record.is_hardware or next(reports, None) is None:
                return link


def _finish(host: Netlink, link: Link, record: Record) -> None:
    """Make a device on the host what it was. What is so already is left."""
    requests = []
    if (link.name, link.alias) != (record.name, record.alias):
        if link.name != record.name:
            _require_free(host, record.name, link)
            # Older kernels rename only what is down.
            requests.append(links.set_flags(link.name, 0, links.IFF_UP))
        requests.append(links.rename(link, record.name, record.alias))
    name = record.name
    if link.mtu != record.mtu:
        what = f"set the mtu of {name} to {record.mtu}"
        requests.append(links.change(name, ("IFLA_MTU", record.mtu), what=what))
    if link.mac != record.mac:
        what = f"set the hardware address of {name} to {record.mac}"
        requests.append(links.change(name, ("IFLA_ADDRESS", record.mac), what=what))
    if record.up:
        requests.append(links.set_up(name))
    requests += [addresses.put_back(link.ifindex, name, one) for one in record.addresses]
    host.submit(*requests)


def _require_free(host: Netlink, name: str, link: Link) -> None:
    have = links.get(host, name)
    if have is not None and have.ifindex != link.ifindex:
        msg = f"cannot give device {link.name} back its name {name}"
        raise CniError(Code.INTERNAL, msg, "the host has another interface of that name")


def _device_name(alias: str) -> str:
    """The alias if it can be a device's name: other plugins write other things there."""
    try:
        validate_device_name(alias, "alias")
    except CniError:
        return ""
    return alias
