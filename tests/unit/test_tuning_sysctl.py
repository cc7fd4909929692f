"""tuning's sysctl keys: which file each means (plugins.md 6.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.plugins.tuning_sysctl import parse, require_distinct
from cni_py.spec.errors import CniError

PATHS = {
    ("net.core.somaxconn", "eth0"): "net/core/somaxconn",
    ("net/core/somaxconn", "eth0"): "net/core/somaxconn",
    ("net/core.somaxconn", "eth0"): "net/core/somaxconn",
    ("net.nf_conntrack_max", "eth0"): "net/nf_conntrack_max",
    ("net.ipv4.conf.IFNAME.rp_filter", "eth0"): "net/ipv4/conf/eth0/rp_filter",
    ("net.ipv4.conf.IFNAME.rp_filter", "eth0.5"): "net/ipv4/conf/eth0.5/rp_filter",
    ("net.ipv4.conf.eth0.5.rp_filter", "eth1"): "net/ipv4/conf/eth0.5/rp_filter",
    ("net.ipv4.conf.eth0/5.rp_filter", "eth1"): "net/ipv4/conf/eth0.5/rp_filter",
    ("net/ipv6/conf/eth0.5/accept_ra", "eth1"): "net/ipv6/conf/eth0.5/accept_ra",
    ("net.ipv6.neigh.IFNAME.gc_stale_time", "a.b.c"): "net/ipv6/neigh/a.b.c/gc_stale_time",
    ("net.mpls.conf.IFNAME.input", "eth0"): "net/mpls/conf/eth0/input",
    ("net.ipv4.conf.all.rp_filter", "eth0"): "net/ipv4/conf/all/rp_filter",
    ("net.ipv4.conf.xIFNAME.rp_filter", "eth0"): "net/ipv4/conf/xeth0/rp_filter",
}
REFUSED = [
    "",
    "net",
    "net.",
    ".net.core",
    "/net/core/somaxconn",
    "/proc/sys/net/core/somaxconn",
    "network.x",
    "Net.core.somaxconn",
    "kernel.panic",
    "net..core",
    "net//core",
    "net/../kernel/panic",
    "net....kernel.panic",
    "net/./core",
    "net.core.x\0",
    "../net/core/somaxconn",
]


@pytest.mark.parametrize(("key", "ifname"), PATHS)
def test_path(key: str, ifname: str) -> None:
    assert list(parse({key: "1"}, ifname)) == [PATHS[key, ifname]]


@pytest.mark.parametrize("key", REFUSED)
def test_refused(key: str) -> None:
    """[W-TU4] What is not below net, and every way of writing that around."""
    with pytest.raises(CniError) as raised:
        parse({key: "1"}, "eth0")
    assert raised.value.code == 7
    assert f'"{key}"' in raised.value.msg


@pytest.mark.parametrize("ifname", ["all", "default"])
def test_ifname_is_no_way_to_all_interfaces(ifname: str) -> None:
    """[W-TU4] conf/all is not the folder of an interface named all."""
    with pytest.raises(CniError):
        parse({"net.ipv4.conf.IFNAME.forwarding": "1"}, ifname)


@given(st.text("netIFNAME.conf/\0 ", max_size=30), st.sampled_from(["eth0", "a.b", "..."]))
def test_no_way_out(key: str, ifname: str) -> None:
    """[W-TU4] Whatever is accepted is a file below net without a step up."""
    try:
        (path,) = parse({key: "1"}, ifname)
    except CniError:
        return
    first, *rest = path.split("/")
    assert first == "net"
    assert rest
    assert not {"", ".", ".."} & set(rest)


def test_duplicates() -> None:
    """[W-TU4] In another spelling, or twice in the text, which the decoder does not tell."""
    for other in ("net/core/x", "net.core/x"):
        with pytest.raises(CniError, match="duplicated sysctl keys"):
            parse({"net.core.x": "1", other: "1"}, "eth0")
    twice = b'{"net.core.x": "1", "net.core.x": "1"}'
    for text in (b'{"sysctl": %s}', b'{"args": {"Cni": {"SYSCTL": %s}}}'):
        with pytest.raises(CniError, match="duplicated sysctl keys"):
            require_distinct(text % twice)
    require_distinct(b'{"sysctl": {"a": "1", "b": "2"}, "other": %s, "args": []}' % twice)
