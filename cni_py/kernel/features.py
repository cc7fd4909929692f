"""What this kernel has of what the plugins need, found out by trying it in a fresh namespace."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from cni_py.spec.errors import CniError

from . import conntrack, iptables, links, new_links, rules, sysctl, tc
from .errors import KernelError
from .netlink import Netlink
from .nft_table import Table, match
from .nftables import forget_contexts, nftables
from .throwaway_netns import elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("veth", "bridge", "dummy", "macvlan", "ipvlan", "vlan", "vrf", "ifb")
_SHAPING = ("tbf", "htb", "ingress", "bfifo")
_TUN = "/dev/net/tun"
_TABLE = Table("inet", "cni_py_probe")
_ABSENT = frozenset({errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT})
_MATCHES = {
    "filter": "-A FORWARD -m comment --comment x -m conntrack --ctstate DNAT -j ACCEPT",
    "nat": "-A POSTROUTING -m comment --comment x -m mark --mark 0x2000/0x2000 -j MASQUERADE",
}


def missing() -> dict[str, str]:
    """What is missing, and what the kernel said: keys such as `link ipvlan`, `nft nat`, `tun`.

    Raises KernelError where it cannot be tried: that takes root.
    """
    return elsewhere(lambda: dict(_missing()))


def _missing() -> Iterator[tuple[str, str]]:
    forget_contexts()
    for name, trial in _trials():
        try:
            trial()
        except CniError as error:
            yield name, str(error)


def _trials() -> Iterator[tuple[str, Callable[[], object]]]:
    for kind in KINDS:
        yield f"link {kind}", partial(_make, kind)
    yield "bridge VLANs", _filter_vlans
    yield "tun", _tun
    yield "shaping", _shape
    yield "IPv6", lambda: sysctl.read("net/ipv6/conf/all/disable_ipv6")
    yield "policy routing", lambda: _in_netlink(rules.dump)
    yield "conntrack", lambda: conntrack.opened().close()
    yield "nft", lambda: nftables().apply("make a table", _TABLE.add())
    for name, chain, statements in _RULES:
        yield f"nft {name}", partial(_rule, chain, statements)
    yield "nft bridge", lambda: nftables().apply("make a table", Table("bridge", "x").add())
    for version in (4, 6):
        for table, line in _MATCHES.items():
            trial = partial(iptables.restore, version, table, [line], "add a rule")
            yield f"iptables {version} {table}", trial


_NAT: dict[str, Any] = _TABLE.hook("nat", "nat", "postrouting", 100)
_FILTER: dict[str, Any] = _TABLE.hook("filter", "filter", "forward", 0)
_RULES: tuple[tuple[str, dict[str, Any], tuple[dict[str, Any], ...]], ...] = (
    ("filter", _FILTER, ({"accept": None},)),
    ("connection tracking", _FILTER, (match({"ct": {"key": "state"}}, ["new"], "in"),)),
    ("nat", _NAT, ({"accept": None},)),
    ("masquerade", _NAT, ({"masquerade": None},)),
    (
        "fib",
        _TABLE.hook("fib", "filter", "prerouting", 0),
        (match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"),),
    ),
)


def _rule(chain: dict[str, Any], statements: tuple[dict[str, Any], ...]) -> None:
    what = f"add a rule to {chain['hook']}"
    nftables().apply(
        what, _TABLE.add(), {"add": {"chain": chain}}, _TABLE.rule(chain["name"], *statements)
    )


def _make(kind: str) -> None:
    """A kind that exists asks for what it needs, which is not given here."""

    def make(netlink: Netlink) -> None:
        try:
            netlink.submit(new_links.create(f"p-{kind}", kind))
        except KernelError as error:
            if error.errno in _ABSENT:
                raise

    _in_netlink(make)


def _filter_vlans() -> None:
    def make(netlink: Netlink) -> None:
        mac = "02:00:00:00:00:01"
        request = links.create_bridge("p-vlans", mtu=0, mac=mac, vlan_filtering=True, group=0)
        netlink.submit(request)
        bridge = links.get(netlink, "p-vlans")
        if bridge is None or not bridge.vlan_filtering:
            raise KernelError("have a bridge filter VLANs", errno.EOPNOTSUPP)

    _in_netlink(make)


def _shape() -> None:
    def look(netlink: Netlink) -> None:
        lacks = tc.missing(netlink, _SHAPING)
        if lacks:
            raise KernelError(f"find {lacks}", errno.EOPNOTSUPP)

    _in_netlink(look)


def _tun() -> None:
    if not os.path.exists(_TUN):
        raise KernelError(f"open {_TUN}", errno.ENOENT)


def _in_netlink(ask: Callable[[Netlink], object]) -> None:
    with Netlink() as netlink:
        ask(netlink)
