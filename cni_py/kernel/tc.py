"""Traffic control: qdiscs, classes and filters (rtnetlink(7), linux/pkt_sched.h, linux/pkt_cls.h).

Encoded by hand: pyroute2's classes reckon the parameters of a token bucket in a way of their own.
"""

from __future__ import annotations

import errno
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple

from .errors import KernelError
from .netlink import CREATE, NLM_F_ACK, Request, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni_py.spec.addresses import Network

    from .netlink import Netlink

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTCLASS, RTM_GETTCLASS = 40, 42
RTM_NEWTFILTER, RTM_GETTFILTER = 44, 46
RTM_NEWACTION = 48
_RTM_NEWLINK = 16

# Handles are major:minor, 16 bits each. That of an ingress qdisc is always ffff:.
_MAJOR = 16
ROOT, INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
INGRESS_HANDLE = 0xFFFF0000

ETH_P_ALL = 0x0003
ETH_P_IP = {4: 0x0800, 6: 0x86DD}
# Where the addresses are in a packet.
SOURCE, DESTINATION = {4: 12, 6: 8}, {4: 16, 6: 24}

MAX_U32 = 2**32 - 1
# What tokens are counted in: 64 ns since Linux 2.6.31 (/proc/net/psched says the same).
TICK_NANOSECONDS = 64
# A class's share when several want to send; there is one.
_QUANTUM_BYTES = 1 << 16
_DIRECT_PACKETS = 1000

_TCMSG = struct.Struct("=BxxxiIII")
_NLMSG_BYTES = 16
# Without ECHO the kernel tells those that listen, but not who has asked; of a qdisc that every link
# has by default it tells nothing, so that the acknowledgement is waited for.
_ASK = 0x8 | NLM_F_ACK
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")
_TCA_KIND, _TCA_OPTIONS = 1, 2
_RATESPEC = struct.Struct("=BBHhHI")
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_TBF_QOPT = struct.Struct("=12s12sIII")
_HTB_PARMS, _HTB_INIT, _HTB_DIRECT_QLEN, _HTB_RATE64, _HTB_CEIL64 = 1, 2, 5, 6, 7
_HTB_GLOB = struct.Struct("=IIIII")
_HTB_OPT = struct.Struct("=12s12sIIIII")
_HTB_VERSION, _HTB_RATE_TO_QUANTUM = 3, 10
_U32_CLASSID, _U32_SEL, _U32_ACT = 1, 5, 7
_U32_TERMINAL = 1
_SELECTOR = struct.Struct("=BBBxHHhhI")
# A key's mask and value are in the network's byte order, its offsets in the machine's.
_KEY, _KEY_OFFSETS = struct.Struct(">II"), struct.Struct("=ii")
_KEY_BYTES = 16
_FIRST_ACTION, _ACT_KIND, _ACT_OPTIONS = 1, 1, 2
_MIRRED_PARMS = 2
_MIRRED = struct.Struct("=IIiiiiI")
_STOLEN, _EGRESS_REDIRECT = 4, 1
_GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.EINVAL})
_NOTHING = _GONE | {0}


class Bucket(NamedTuple):
    """A token bucket: bytes a second, bytes at once, bytes of queue, and the tokens in ticks."""

    rate: int
    burst: int
    limit: int
    ticks: int


class Qdisc(NamedTuple):
    """A qdisc or a class as the kernel has it. `options` are its kind's attributes by number."""

    kind: str
    handle: int
    options: dict[int, bytes]
    raw: bytes = b""


class Filter(NamedTuple):
    """A u32 filter: what it takes goes to a class, or to another link.

    `keys` are (mask, value, offset) of 32 bits of the packet; `redirect` is an ifindex, 0 for none.
    """

    priority: int
    protocol: int
    class_id: int
    keys: tuple[tuple[int, int, int], ...]
    redirect: int = 0


def handle(major: int, minor: int = 0) -> int:
    """major:minor as a number."""
    return major << _MAJOR | minor


def shown(number: int) -> str:
    """A handle as tc prints it."""
    major, minor = number >> _MAJOR, number & 0xFFFF
    return f"{major:x}:{minor:x}" if minor else f"{major:x}:"


# Requests. `link` is its index and name.


def tbf(link: tuple[int, str], own: int, bucket: Bucket) -> Request:
    """The request that adds a token bucket filter at the root."""
    parms = _TBF_QOPT.pack(_rate(bucket), b"", bucket.limit, min(bucket.ticks, MAX_U32), 0)
    options = attribute(_TBF_PARMS, parms)
    if bucket.rate > MAX_U32:
        options += attribute(_TBF_RATE64, _U64.pack(bucket.rate))
    if bucket.ticks > MAX_U32:
        # Reckoned by the kernel, in 64 bits.
        options += attribute(_TBF_BURST, _U32.pack(bucket.burst))
    return _add(link, "tbf", ROOT, own, options)


def htb(link: tuple[int, str], own: int, default: int) -> Request:
    """The request that adds a hierarchical token bucket at the root.

    What no filter takes goes to the class with the minor number `default`; 0 is no class, where
    nothing is held back.
    """
    init = _HTB_GLOB.pack(_HTB_VERSION, _HTB_RATE_TO_QUANTUM, default, 0, 0)
    options = attribute(_HTB_INIT, init)
    options += attribute(_HTB_DIRECT_QLEN, _U32.pack(_DIRECT_PACKETS))
    return _add(link, "htb", ROOT, own, options)


def htb_class(link: tuple[int, str], own: int, bucket: Bucket) -> Request:
    """The request that adds a class with a rate to the hierarchical token bucket."""
    rate, ticks = _rate(bucket), min(bucket.ticks, MAX_U32)
    parms = _HTB_OPT.pack(rate, rate, ticks, ticks, _QUANTUM_BYTES, 0, 0)
    options = attribute(_HTB_PARMS, parms)
    if bucket.rate > MAX_U32:
        for kind in (_HTB_RATE64, _HTB_CEIL64):
            options += attribute(kind, _U64.pack(bucket.rate))
    return _add(link, "htb", ROOT, own, options, RTM_NEWTCLASS)


def bfifo(link: tuple[int, str], parent: int, own: int, limit: int) -> Request:
    """The request that gives a class a queue of `limit` bytes."""
    return _add(link, "bfifo", parent, own, _U32.pack(limit))


def ingress(link: tuple[int, str]) -> Request:
    """The request that adds the place where filters see what comes in through a link."""
    return _add(link, "ingress", INGRESS, INGRESS_HANDLE, None)


def delete(link: tuple[int, str], parent: int) -> Request:
    """The request that removes the qdisc at the root or at ingress, with all that hangs on it."""
    message = _TCMSG.pack(0, link[0], 0, parent, 0)
    place = "root" if parent == ROOT else "ingress"
    what = f"remove the {place} qdisc of {link[1]}"
    return Request(what, RTM_DELQDISC, message, tolerate=_GONE)


def add_filter(link: tuple[int, str], parent: int, one: Filter) -> Request:
    """The request that adds a filter to a qdisc."""
    options = attribute(_U32_CLASSID, _U32.pack(one.class_id))
    selector = _SELECTOR.pack(_U32_TERMINAL, 0, len(one.keys), 0, 0, 0, 0, 0)
    for mask, value, offset in one.keys:
        selector += _KEY.pack(mask, value) + _KEY_OFFSETS.pack(offset, 0)
    options += attribute(_U32_SEL, selector)
    if one.redirect:
        options += attribute(_U32_ACT, attribute(_FIRST_ACTION, _redirect(one.redirect)))
    info = handle(one.priority, _swapped(one.protocol))
    message = _TCMSG.pack(0, link[0], 0, parent, info)
    message += attribute(_TCA_KIND, b"u32\0") + attribute(_TCA_OPTIONS, options)
    return Request(f"add a filter to {link[1]}", RTM_NEWTFILTER, message, CREATE)


def keys_of(subnet: Network, offset: int) -> tuple[tuple[int, int, int], ...]:
    """The keys that match an address of the subnet, which is at `offset` in the packet."""
    count = subnet.max_prefixlen // 8
    mask, value = int(subnet.netmask).to_bytes(count), subnet.network_address.packed
    words = range(0, count, 4)
    keys = [(*_KEY.unpack(mask[at : at + 4] + value[at : at + 4]), offset + at) for at in words]
    return tuple(one for one in keys if one[0]) or ANYTHING


ANYTHING = ((0, 0, 0),)


# Looking up.


def get(netlink: Netlink, link: tuple[int, str], parent: int) -> Qdisc | None:
    """The qdisc at the root, at ingress, or of a class; None without one. Raises KernelError."""
    message = _TCMSG.pack(0, link[0], 0, parent, 0)
    what = f"look up a qdisc of {link[1]}"
    found = netlink.get(Request(what, RTM_GETQDISC, message, _ASK, _NOTHING))
    return None if found is None else _qdisc(found)


def dump(netlink: Netlink) -> dict[int, list[Qdisc]]:
    """Every link's qdiscs by its index. Raises KernelError."""
    found: dict[int, list[Qdisc]] = {}
    message = _TCMSG.pack(0, 0, 0, 0, 0)
    for body in netlink.dump(Request("list the qdiscs", RTM_GETQDISC, message)):
        index = _TCMSG.unpack_from(body, _NLMSG_BYTES)[1]
        found.setdefault(index, []).append(_qdisc(body))
    return found


def get_class(netlink: Netlink, link: tuple[int, str], own: int) -> Qdisc | None:
    """A class; None if there is none. Raises KernelError."""
    message = _TCMSG.pack(0, link[0], own, 0, 0)
    what = f"look up class {shown(own)} of {link[1]}"
    found = netlink.get(Request(what, RTM_GETTCLASS, message, _ASK, _NOTHING))
    return None if found is None else _qdisc(found)


def filters(netlink: Netlink, link: tuple[int, str], parent: int) -> list[Filter]:
    """The u32 filters of a qdisc. Raises KernelError."""
    message = _TCMSG.pack(0, link[0], 0, parent, 0)
    bodies = netlink.dump(Request(f"list the filters of {link[1]}", RTM_GETTFILTER, message))
    return [one for body in bodies if (one := _filter(body)) is not None]


def bucket_of_tbf(qdisc: Qdisc) -> tuple[int, int, int]:
    """A token bucket filter's rate, limit and ticks; of the ticks the low 32 bits."""
    rate, _, limit, ticks, _ = _TBF_QOPT.unpack(qdisc.options[_TBF_PARMS][: _TBF_QOPT.size])
    return _rate_of(rate, qdisc.options.get(_TBF_RATE64)), limit, ticks


def rate_of_class(qdisc: Qdisc) -> tuple[int, int, int, int]:
    """A class's rate and ticks, and the same of its ceiling."""
    parms = qdisc.options[_HTB_PARMS][: _HTB_OPT.size]
    rate, ceiling, ticks, ceiling_ticks, _, _, _ = _HTB_OPT.unpack(parms)
    rates = (
        _rate_of(rate, qdisc.options.get(_HTB_RATE64)),
        _rate_of(ceiling, qdisc.options.get(_HTB_CEIL64)),
    )
    return rates[0], ticks, rates[1], ceiling_ticks


def default_of_htb(qdisc: Qdisc) -> int:
    """The minor number of the class for what no filter takes."""
    default: int = _HTB_GLOB.unpack(qdisc.options[_HTB_INIT][: _HTB_GLOB.size])[2]
    return default


def limit_of_bfifo(qdisc: Qdisc) -> int:
    """The bytes that a queue takes."""
    limit: int = _U32.unpack(qdisc.raw[: _U32.size])[0]
    return limit


# What the kernel can do.

# No link, qdisc or action can be made with what these requests say: the kernel refuses it in its
# own way where it has the kind, for which it loads the module first.
_LOOPBACK_INDEX = 1
_UNKNOWN = frozenset({errno.ENOENT, errno.EOPNOTSUPP})
_NO_ANSWER = frozenset({errno.EINVAL, errno.EPERM})


def missing(netlink: Netlink, qdiscs: Sequence[str]) -> str:
    """The first of what is needed that the kernel does not have, `""` if it has all.

    Raises KernelError for an answer that does not tell. In a user namespace actions are made with
    filters alone, so that nothing tells whether there is act_mirred: it counts as there.
    """
    address = attribute(1, bytes(6))
    kind = attribute(18, attribute(1, b"ifb\0"))
    block = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + address + kind
    action = attribute(1, attribute(_FIRST_ACTION, attribute(_ACT_KIND, b"mirred\0")))
    probes = [
        Request("ifb", _RTM_NEWLINK, block, CREATE, frozenset({errno.EADDRNOTAVAIL})),
        Request("act_mirred", RTM_NEWACTION, bytes(4) + action, CREATE, _NO_ANSWER),
    ]
    for name in qdiscs:
        message = _TCMSG.pack(0, _LOOPBACK_INDEX, 0, ROOT, 0)
        message += attribute(_TCA_KIND, name.encode() + b"\0")
        refused = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
        probes.append(Request(f"sch_{name}", RTM_NEWQDISC, message, CREATE, refused))
    try:
        netlink.submit(*probes)
    except KernelError as error:
        if error.errno not in _UNKNOWN:
            raise
        return error.msg.partition(":")[0]
    return ""


def _add(
    link: tuple[int, str],
    kind: str,
    parent: int,
    own: int,
    options: bytes | None,
    message_type: int = RTM_NEWQDISC,
) -> Request:
    message = _TCMSG.pack(0, link[0], own, parent, 0) + attribute(_TCA_KIND, kind.encode() + b"\0")
    if options is not None:
        message += attribute(_TCA_OPTIONS, options)
    noun = "class" if message_type == RTM_NEWTCLASS else "qdisc"
    return Request(f"add a {kind} {noun} to {link[1]}", message_type, message, CREATE)


def _rate(bucket: Bucket) -> bytes:
    return _RATESPEC.pack(0, 0, 0, 0, 0, min(bucket.rate, MAX_U32))


def _rate_of(spec: bytes, in_64_bits: bytes | None) -> int:
    rate: int = _RATESPEC.unpack(spec)[5]
    return rate if in_64_bits is None else int.from_bytes(in_64_bits, sys.byteorder)


def _redirect(ifindex: int) -> bytes:
    parms = _MIRRED.pack(0, 0, _STOLEN, 0, 0, _EGRESS_REDIRECT, ifindex)
    options = attribute(_MIRRED_PARMS, parms)
    return attribute(_ACT_KIND, b"mirred\0") + attribute(_ACT_OPTIONS, options)


def _swapped(protocol: int) -> int:
    """A protocol's number as it stands in a message: in the network's byte order."""
    return int.from_bytes(protocol.to_bytes(2), sys.byteorder)


def _parts(body: bytes) -> tuple[tuple[int, ...], str, bytes]:
    """The message's (handle, parent, info), its kind and its options."""
    _, _, own, parent, info = _TCMSG.unpack_from(body, _NLMSG_BYTES)
    have = attributes(body, _NLMSG_BYTES + _TCMSG.size)
    kind = have.get(_TCA_KIND, b"").rstrip(b"\0").decode(errors="replace")
    return (own, parent, info), kind, have.get(_TCA_OPTIONS, b"")


def _qdisc(body: bytes) -> Qdisc:
    (own, _, _), kind, options = _parts(body)
    return Qdisc(kind, own, attributes(options), options)


def _filter(body: bytes) -> Filter | None:
    (_, _, info), kind, options = _parts(body)
    have = attributes(options)
    selector = have.get(_U32_SEL)
    if kind != "u32" or selector is None:
        return None
    places = range(_SELECTOR.size, _SELECTOR.size + selector[2] * _KEY_BYTES, _KEY_BYTES)
    keys = tuple(
        (*_KEY.unpack_from(selector, at), _KEY_OFFSETS.unpack_from(selector, at + _KEY.size)[0])
        for at in places
    )
    class_id = _U32.unpack(have.get(_U32_CLASSID, bytes(4)))[0]
    priority, protocol = info >> _MAJOR, _swapped(info & 0xFFFF)
    return Filter(priority, protocol, class_id, keys, _redirected(have.get(_U32_ACT, b"")))


def _redirected(actions: bytes) -> int:
    """Where the first action leads to: the kernel goes no further than that."""
    action = attributes(attributes(actions).get(_FIRST_ACTION, b""))
    parms = attributes(action.get(_ACT_OPTIONS, b"")).get(_MIRRED_PARMS, b"")
    if action.get(_ACT_KIND, b"").rstrip(b"\0") != b"mirred" or len(parms) < _MIRRED.size:
        return 0
    _, _, verdict, _, _, direction, ifindex = _MIRRED.unpack_from(parms)
    return ifindex if (verdict, direction) == (_STOLEN, _EGRESS_REDIRECT) else 0
