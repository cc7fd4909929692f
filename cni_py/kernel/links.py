"""Links: look up, create, change, delete (rtnetlink(7), RTM_*LINK)."""

from __future__ import annotations

import errno
import os
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from .encoding import LINK, encoded
from .errors import KernelError
from .netlink import CREATE, RTMGRP_LINK, Netlink, Request, attribute, attributes, decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AF_BRIDGE = 7

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19

IFF_UP = 0x1
IFF_PROMISC = 0x100
IFF_ALLMULTI = 0x200

_EXT_MASK_BRIDGE_VLANS = 1 << 1

# Links that are about to be deleted together are in a group with this in its highest byte.
_DELETED_GROUPS = 0x43000000
_BATCH = 100

# With the NUL at its end.
_IFNAME_BYTES = 16

# linux/if_link.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_MASTER, _IFLA_TXQLEN, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_IFALIAS = 10, 13, 16, 18, 20
_IFLA_STATS64, _IFLA_GROUP, _IFLA_PROMISCUITY = 23, 27, 30
_IFLA_LINK_NETNSID, _IFLA_ALT_IFNAME = 37, 53
_IFLA_NET_NS_FD, _IFLA_PERM_ADDRESS, _IFLA_PARENT_DEV_NAME, _IFLA_PARENT_BUS_NAME = 28, 54, 56, 57
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_BR_VLAN_FILTERING, _BRPORT_MODE, _BRPORT_ISOLATED = 7, 4, 33
_NO_NETNSID = b"\xff\xff\xff\xff"
_OPERSTATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
_NLMSG_BYTES = 16
_INFO = struct.Struct("=BxHiII")
_STATISTICS = struct.Struct("=8Q")

GONE = frozenset({errno.ENODEV})
PRESENT = frozenset({errno.EEXIST})


class Counters(msgspec.Struct, frozen=True):
    """Bytes and packets that a link has received and sent (linux/if_link.h, rtnl_link_stats64)."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class Link(NamedTuple):
    """What the plugins read of a link. `peer_index` is IFLA_LINK, `alias` the owner's label.

    `group` marks a link that its maker has not finished: it can be set as the link is created, an
    alias cannot. `parent` is the hardware behind it, as `pci/0000:00:03.0`; Linux before 5.14 does
    not tell. `data` has the attributes of the link's kind. `promiscuous` and `all_multicast` are
    what was asked for by flag; `promiscuity` also counts what others need. `statistics` is the
    kernel's struct of counters.
    """

    ifindex: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    operstate: str
    master: int
    peer_index: int
    peer_netnsid: int | None
    alias: str
    group: int
    promiscuity: int
    vlan_filtering: bool
    hairpin: bool
    isolated: bool
    permanent_mac: str
    parent: str
    data: Mapping[int, bytes]
    promiscuous: bool
    all_multicast: bool
    queue_length: int
    statistics: bytes = b""

    @property
    def counters(self) -> Counters:
        """What has gone through the link; zeros where the kernel does not tell."""
        if len(self.statistics) < _STATISTICS.size:
            return Counters()
        rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped = (
            _STATISTICS.unpack_from(self.statistics)
        )
        return Counters(
            rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped
        )

    def number(self, attribute: int) -> int | None:
        """A number among the attributes of the link's kind, None if it has no such."""
        value = self.data.get(attribute)
        return None if value is None else _number(value)


def get(netlink: Netlink, name: str) -> Link | None:
    """The link of that name, None if there is none. Raises KernelError.

    A name of more than 15 bytes is an alternative one.
    """
    # By hand like its answer: an ADD asks several times.
    text = os.fsencode(name) + b"\0"
    kind = _IFLA_IFNAME if len(text) <= _IFNAME_BYTES else _IFLA_ALT_IFNAME
    message = _INFO.pack(0, 0, 0, 0, 0) + attribute(kind, text)
    found = netlink.get(Request(f"look up link {name}", RTM_GETLINK, message, tolerate=GONE))
    return None if found is None else _link(found)


def get_by_index(netlink: Netlink, index: int, netnsid: int | None = None) -> Link | None:
    """The link with that index, here or in the namespace known here as `netnsid`.

    None if there is none, also when the other namespace is already being taken down.
    """
    message: Any = _INFO.pack(0, 0, index, 0, 0)
    if netnsid is not None:
        message = _message(index=index, attributes=[("IFLA_IF_NETNSID", netnsid)])
    gone = GONE if netnsid is None else frozenset({errno.ENODEV, errno.EINVAL})
    found = netlink.get(Request(f"look up link {index}", RTM_GETLINK, message, tolerate=gone))
    return None if found is None else _link(found)


def dump(netlink: Netlink, kind: str = "") -> list[Link]:
    """All links, or those of one kind."""
    attributes = [("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]})] if kind else []
    message = _message(attributes=attributes)
    found = [_link(one) for one in netlink.dump(Request("list the links", RTM_GETLINK, message))]
    return [one for one in found if not kind or one.kind == kind]


def count_ports(netlink: Netlink, bridge: Link) -> int:
    """How many links have the bridge as their master. Raises KernelError."""
    message = _message(attributes=[("IFLA_MASTER", bridge.ifindex)])
    return len(netlink.dump(Request(f"list the ports of {bridge.name}", RTM_GETLINK, message)))


def create_bridge(name: str, *, mtu: int, mac: str, vlan_filtering: bool, group: int) -> Request:
    """The request that creates a bridge, or finds that it exists. `mtu` 0 leaves the kernel's."""
    data: list[Any] = [("IFLA_BR_VLAN_FILTERING", 1)] if vlan_filtering else []
    info = [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": data})]
    # A bridge without a fixed address changes it with its ports (W-BR15).
    attributes = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", mac), *_mtu(mtu), *_group(group)]
    message = _message(attributes=[*attributes, ("IFLA_LINKINFO", {"attrs": info})])
    return Request(f"create bridge {name}", RTM_NEWLINK, message, CREATE, tolerate=PRESENT)


def enable_vlan_filtering(name: str) -> Request:
    """The request that makes a bridge enforce its ports' VLANs."""
    info = [
        ("IFLA_INFO_KIND", "bridge"),
        ("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_VLAN_FILTERING", 1)]}),
    ]
    message = _message(attributes=[("IFLA_IFNAME", name), ("IFLA_LINKINFO", {"attrs": info})])
    return Request(f"turn on VLAN filtering of bridge {name}", RTM_NEWLINK, message)


def finish(link: Link, alias: str) -> Request:
    """The request that labels a link with its owner, and sets it up; see `set_owner`."""
    message = _INFO.pack(0, 0, link.ifindex, IFF_UP, IFF_UP)
    message += attribute(_IFLA_IFALIAS, os.fsencode(alias)) + attribute(_IFLA_GROUP, bytes(4))
    return Request(f"label link {link.name} and set it up", RTM_SETLINK, message)


class VethEnd(NamedTuple):
    """One end of a veth pair to create. The peer's namespace is `netns_fd`; master, up and group
    are for the first end: the kernel takes none of them for the peer.
    """

    name: str
    mac: str = ""
    netns_fd: int | None = None
    master: int = 0
    up: bool = False
    group: int = 0


def create_veth(host: VethEnd, container: VethEnd, *, mtu: int) -> Request:
    """The request that creates a pair, each end in its place.

    The kernel refuses to create a peer that is up (ENOTCONN); the host's end can be.
    """
    peer = [("IFLA_IFNAME", container.name), *_mtu(mtu)]
    if container.mac:
        peer.append(("IFLA_ADDRESS", container.mac))
    if container.netns_fd is not None:
        peer.append(("IFLA_NET_NS_FD", container.netns_fd))
    info = [
        ("IFLA_INFO_KIND", "veth"),
        ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}),
    ]
    # The reference creates the host's end with a queue length of 0 (K-03).
    own = [("IFLA_IFNAME", host.name), ("IFLA_TXQLEN", 0), *_mtu(mtu), *_group(host.group)]
    if host.mac:
        own.append(("IFLA_ADDRESS", host.mac))
    if host.master:
        own.append(("IFLA_MASTER", host.master))
    flags = IFF_UP if host.up else 0
    message = _message(
        flags=flags, change=flags, attributes=[*own, ("IFLA_LINKINFO", {"attrs": info})]
    )
    what = f"create veth pair {host.name} and {container.name}"
    return Request(what, RTM_NEWLINK, message, CREATE)


def change(name: str, *attributes: tuple[str, Any], what: str = "") -> Request:
    """The request that sets attributes of the link `name`."""
    message = _message(attributes=[("IFLA_IFNAME", name), *attributes])
    return Request(what or f"change link {name}", RTM_SETLINK, message)


def set_port(name: str, alias: str, *, hairpin: bool, isolated: bool) -> Request:
    """The request that labels a bridge's port with its owner and sets its flags (K-08).

    `alias` has at most 254 bytes. The port is finished: it is in no group of unfinished links.
    """
    port = [("IFLA_BRPORT_MODE", int(hairpin)), ("IFLA_BRPORT_ISOLATED", int(isolated))]
    info = [
        ("IFLA_INFO_SLAVE_KIND", "bridge"),
        ("IFLA_INFO_SLAVE_DATA", {"attrs": port}),
    ]
    attributes = [
        ("IFLA_IFNAME", name),
        ("IFLA_IFALIAS", alias),
        ("IFLA_GROUP", 0),
        ("IFLA_LINKINFO", {"attrs": info}),
    ]
    return Request(f"set up bridge port {name}", RTM_NEWLINK, _message(attributes=attributes))


def set_owner(name: str, alias: str) -> Request:
    """The request that labels a link, which is finished, with its owner; see `set_port`."""
    return change(name, ("IFLA_IFALIAS", alias), ("IFLA_GROUP", 0), what=f"label link {name}")


def move(link: Link, netns_fd: int, name: str, alias: str) -> Request:
    """The request that moves a link to another namespace, under that name and alias.

    It is carried out in this order: a name that is taken leaves the link there under its own one.
    """
    message = _INFO.pack(0, 0, link.ifindex, 0, 0)
    message += attribute(_IFLA_NET_NS_FD, netns_fd.to_bytes(4, sys.byteorder))
    return Request(f"move link {link.name} to {name}", RTM_SETLINK, message + _named(name, alias))


def rename(link: Link, name: str, alias: str) -> Request:
    """The request that gives a link another name and alias."""
    message = _INFO.pack(0, 0, link.ifindex, 0, 0) + _named(name, alias)
    return Request(f"rename link {link.name} to {name}", RTM_SETLINK, message)


def _named(name: str, alias: str) -> bytes:
    # An alias is taken away by one without even a NUL.
    text = attribute(_IFLA_IFALIAS, os.fsencode(alias))
    return attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0") + text


def set_flags(name: str, flags: int, mask: int) -> Request:
    """The request that sets those of a link's flags that `mask` names."""
    message = _message(flags=flags, change=mask, attributes=[("IFLA_IFNAME", name)])
    return Request(f"set the flags of link {name}", RTM_SETLINK, message)


def set_up(name: str) -> Request:
    """The request that sets a link up."""
    return set_flags(name, IFF_UP, IFF_UP)


def delete(netlink: Netlink, name: str) -> bool:
    """Delete the link `name`; False if there was none. Raises KernelError."""
    message = _message(attributes=[("IFLA_IFNAME", name)])
    try:
        netlink.submit(Request(f"delete link {name}", RTM_DELLINK, message))
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def delete_port(netlink: Netlink, name: str) -> bool:
    """Delete a link that may be a bridge's port; False if there was none. Raises KernelError.

    Taken off its bridge before, in the same batch, it is gone in 16 ms instead of 20: the bridge's
    own grace period is not waited for within the removal of the link.
    """
    message = _message(attributes=[("IFLA_IFNAME", name)])
    free = change(name, ("IFLA_MASTER", 0), what=f"take {name} off its bridge")
    remove = Request(f"delete link {name}", RTM_DELLINK, message)
    try:
        netlink.submit(free._replace(tolerate=GONE), remove)
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def delete_together(netlink: Netlink, names: Sequence[str]) -> None:
    """Delete many links in one removal, whose grace periods they share. Raises KernelError.

    A group of their own marks them; one that vanishes meanwhile is passed over. Removing 128 pairs
    takes 55 ms this way and 2.8 s one after another.
    """
    if not names:
        return
    group = _DELETED_GROUPS | int.from_bytes(os.urandom(3), sys.byteorder)
    marks = [change(name, ("IFLA_GROUP", group), what=f"mark link {name}") for name in names]
    for start in range(0, len(marks), _BATCH):
        batch = marks[start : start + _BATCH]
        netlink.submit(*(one._replace(tolerate=GONE) for one in batch))
    message = _message(attributes=[("IFLA_GROUP", group)])
    what = f"delete {len(names)} links"
    netlink.submit(Request(what, RTM_DELLINK, message, tolerate=GONE))


def wait_until_up(netlink: Netlink, name: str, deadline: float) -> Link:
    """Wait for a link's operational state to be UP: a bridge forwards nothing before that.

    `deadline` is of time.monotonic(). Raises KernelError ETIMEDOUT, or ENODEV if the link vanishes.
    Asking makes recent kernels settle the state at once; older ones report it in an event.
    """
    link = _require(netlink, name)
    if link.operstate == "UP":
        return link
    with Netlink(RTMGRP_LINK) as events:
        link = _require(netlink, name)
        if link.operstate == "UP":
            return link
        for body in events.events(deadline):
            if body and _INFO.unpack_from(body, _NLMSG_BYTES)[2] != link.ifindex:
                continue
            link = _require(netlink, name)
            if link.operstate == "UP":
                return link
    text = f"its operational state is {link.operstate}, waited until {time.monotonic():.1f} s"
    raise KernelError(f"wait for link {name} to be up", errno.ETIMEDOUT, text)


def bridge_vlans(netlink: Netlink, index: int) -> tuple[tuple[int, int], ...]:
    """The (vid, flags) on one bridge port."""
    return bridge_vlans_by_port(netlink).get(index, ())


def bridge_vlans_by_port(netlink: Netlink) -> dict[int, tuple[tuple[int, int], ...]]:
    """The (vid, flags) on each bridge port and each bridge itself, by index. Raises KernelError."""
    message = _message(family=AF_BRIDGE, attributes=[("IFLA_EXT_MASK", _EXT_MASK_BRIDGE_VLANS)])
    found = {}
    for body in netlink.dump(Request("list bridge VLANs", RTM_GETLINK, message)):
        port = decode("ifinfmsg", body)
        spec = port.get_attr("IFLA_AF_SPEC")
        infos = [] if spec is None else spec.get_attrs("IFLA_BRIDGE_VLAN_INFO")
        found[port["index"]] = tuple((one["vid"], one["flags"]) for one in infos)
    return found


BRIDGE_VLAN_PVID = 0x2
BRIDGE_VLAN_UNTAGGED = 0x4
_VLAN_RANGE_BEGIN = 0x8
_VLAN_RANGE_END = 0x10


def add_vlans(index: int, name: str, first: int, last: int, flags: int = 0) -> Request:
    """The request that adds the VLANs `first` to `last` to a port, as one range."""
    return _vlans(RTM_SETLINK, f"add VLANs {first}-{last} to {name}", index, first, last, flags)


def delete_vlans(index: int, name: str, first: int, last: int) -> Request:
    """The request that takes the VLANs `first` to `last` off a port."""
    return _vlans(RTM_DELLINK, f"remove VLANs {first}-{last} of {name}", index, first, last, 0)


def _vlans(kind: int, what: str, index: int, first: int, last: int, flags: int) -> Request:
    entries: Sequence[dict[str, int]] = [{"vid": first, "flags": flags}]
    if last != first:
        entries = [
            {"vid": first, "flags": flags | _VLAN_RANGE_BEGIN},
            {"vid": last, "flags": flags | _VLAN_RANGE_END},
        ]
    spec = [("IFLA_BRIDGE_VLAN_INFO", one) for one in entries]
    message = _message(
        family=AF_BRIDGE, index=index, attributes=[("IFLA_AF_SPEC", {"attrs": spec})]
    )
    return Request(what, kind, message)


def _require(netlink: Netlink, name: str) -> Link:
    link = get(netlink, name)
    if link is None:
        raise KernelError(f"look up link {name}", errno.ENODEV)
    return link


def _mtu(mtu: int) -> list[tuple[str, Any]]:
    return [("IFLA_MTU", mtu)] if mtu else []


def _group(group: int) -> list[tuple[str, Any]]:
    return [("IFLA_GROUP", group)] if group else []


def _message(
    *,
    family: int = 0,
    index: int = 0,
    flags: int = 0,
    change: int = 0,
    attributes: Sequence[tuple[str, Any]] = (),
) -> bytes:
    return _INFO.pack(family, 0, index, flags, change) + encoded(LINK, attributes)


def _link(body: bytes) -> Link:
    """Read a link's message: by hand, for pyroute2 takes ten times as long (decision 2)."""
    _, _, index, flags, _ = _INFO.unpack_from(body, _NLMSG_BYTES)
    have = attributes(body, _NLMSG_BYTES + _INFO.size)
    info = attributes(have.get(_IFLA_LINKINFO, b""))
    kind = _text(info.get(_INFO_KIND, b""))
    data = attributes(info.get(_INFO_DATA, b""))
    is_port = _text(info.get(_INFO_SLAVE_KIND, b"")) == "bridge"
    port = attributes(info.get(_INFO_SLAVE_DATA, b"")) if is_port else {}
    netnsid = have.get(_IFLA_LINK_NETNSID)
    return Link(
        ifindex=index,
        name=_text(have[_IFLA_IFNAME]),
        kind=kind,
        mac=have.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(have.get(_IFLA_MTU)),
        up=bool(flags & IFF_UP),
        operstate=_OPERSTATES[_number(have.get(_IFLA_OPERSTATE))],
        master=_number(have.get(_IFLA_MASTER)),
        peer_index=_number(have.get(_IFLA_LINK)),
        peer_netnsid=None if netnsid is None or netnsid == _NO_NETNSID else _number(netnsid),
        alias=_text(have.get(_IFLA_IFALIAS, b"")),
        group=_number(have.get(_IFLA_GROUP)),
        promiscuity=_number(have.get(_IFLA_PROMISCUITY)),
        vlan_filtering=kind == "bridge" and bool(_number(data.get(_BR_VLAN_FILTERING))),
        hairpin=bool(_number(port.get(_BRPORT_MODE))),
        isolated=bool(_number(port.get(_BRPORT_ISOLATED))),
        permanent_mac=have.get(_IFLA_PERM_ADDRESS, b"").hex(":"),
        parent="/".join(
            _text(have[one])
            for one in (_IFLA_PARENT_BUS_NAME, _IFLA_PARENT_DEV_NAME)
            if one in have
        ),
        data=data,
        promiscuous=bool(flags & IFF_PROMISC),
        all_multicast=bool(flags & IFF_ALLMULTI),
        queue_length=_number(have.get(_IFLA_TXQLEN)),
        statistics=have.get(_IFLA_STATS64, b""),
    )


def _number(value: bytes | None) -> int:
    """An attribute of one to four bytes in the machine's order; 0 for none."""
    return 0 if value is None else int.from_bytes(value, sys.byteorder)


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))
