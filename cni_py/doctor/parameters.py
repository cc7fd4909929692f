"""Kernel parameters that stop packets, or run out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni_py.kernel import addresses, links, sysctl
from cni_py.kernel.errors import KernelError
from cni_py.kernel.netlink import Netlink

from .finding import broken, fine, look, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .examinations import Places
    from .finding import Finding

_NEARLY = 0.8
_FORWARD = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
_STRICT = 1
_FEW_INSTANCES = 256


def examine(_places: Places) -> Iterator[Finding]:
    """Look at forwarding, filters, tables' limits."""
    with Netlink() as host:
        found = links.dump(host)
        gateways = addresses.dump_all(host, version=4)
    ends = [one for one in found if one.kind == "veth" and ", net: " in one.alias]
    # On a bridge without an address nothing is forwarded but frames.
    yield from _forwarding(sum((one.master or one.ifindex) in gateways for one in ends))
    yield from _reverse_paths([one.name for one in found])
    yield from _bridged()
    yield from _conntrack()
    yield from _neighbours(len(ends))
    yield from _inotify()


def _forwarding(containers: int) -> Iterator[Finding]:
    for version, key in _FORWARD.items():
        value = _value(key)
        if value is None:
            continue
        if value:
            yield fine(f"IPv{version} is forwarded")
        elif containers and version == 4:
            text = f"IPv4 is not forwarded ({_spelled(key)} is 0) with {containers} containers"
            yield broken(text, f"sysctl -w {_spelled(key)}=1")
        else:
            yield note(f"IPv{version} is not forwarded yet: the first container's ADD turns it on")


def _reverse_paths(names: list[str]) -> Iterator[Finding]:
    """The kernel takes the greater of a link's value and that of `all`."""
    everywhere = _value("net/ipv4/conf/all/rp_filter") or 0
    own = [(one, _value(f"net/ipv4/conf/{one}/rp_filter") or 0) for one in names if one != "lo"]
    strict = [one for one, value in own if max(everywhere, value) == _STRICT]
    if not strict:
        yield fine("no link's rp_filter is strict")
        return
    shown = ", ".join(strict[:5]) + (" ..." if len(strict) > 5 else "")
    text = f"rp_filter is strict on {len(strict)} links ({shown}): what would be answered through "
    text += "another link is dropped without a word, as with sbr and several uplinks"
    yield note(text, "sysctl -w net.ipv4.conf.all.rp_filter=2")


def _bridged() -> Iterator[Finding]:
    value = _value("net/bridge/bridge-nf-call-iptables")
    if value is None:
        yield note("br_netfilter is not loaded: frames between ports of a bridge pass no IP rules")
    elif value:
        yield fine("frames between ports of a bridge pass the IP rules (bridge-nf-call-iptables)")
    else:
        yield note("br_netfilter is loaded and turned off: kube-proxy wants it on",
            "sysctl -w net.bridge.bridge-nf-call-iptables=1")  # fmt: skip


def _conntrack() -> Iterator[Finding]:
    count, most = (_value(f"net/netfilter/nf_conntrack_{one}") for one in ("count", "max"))
    if count is None or not most:
        yield note("connections are not tracked here: no such parameter is to be seen")
        return
    text = f"{count} connections are tracked of at most {most}"
    remedy = f"sysctl -w net.netfilter.nf_conntrack_max={most * 2}"
    if count >= most:
        yield broken(f"{text}: new ones are dropped", remedy)
    elif count > most * _NEARLY:
        yield look(f"{text}: new ones will be dropped", remedy)
    else:
        yield fine(text)


def _neighbours(containers: int) -> Iterator[Finding]:
    for version in (4, 6):
        most = _value(f"net/ipv{version}/neigh/default/gc_thresh3")
        if most is None:
            continue
        text = f"the kernel keeps {most} IPv{version} neighbours, with {containers} containers"
        if containers > most * _NEARLY:
            key = f"net.ipv{version}.neigh.default.gc_thresh"
            remedy = f"sysctl -w {key}3={most * 4} {key}2={most * 2}"
            yield look(f"{text}: `neighbour table overflow` comes next", remedy)
        else:
            yield fine(text)


def _inotify() -> Iterator[Finding]:
    most = _value("fs/inotify/max_user_instances")
    if most is not None and most < _FEW_INSTANCES:
        text = f"a user may have {most} inotify instances: runtimes and tools such as `tail -f` in "
        text += "containers use them up"
        yield note(text, "sysctl -w fs.inotify.max_user_instances=8192")


def _value(key: str) -> int | None:
    try:
        return int(sysctl.read(key).split()[0])
    except (KernelError, ValueError, IndexError):
        return None


def _spelled(key: str) -> str:
    return key.replace(os.sep, ".")
