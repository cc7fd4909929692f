"""Texts that others write: iptables' listings, resolv.conf, tuning's allowlist, sysctls' names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni_py.inventory.iptables_rules import rules_in
from cni_py.ipam.resolv_conf import parse_resolv_conf
from cni_py.kernel import iptables
from cni_py.plugins import tuning_sysctl
from cni_py.spec import versions
from cni_py.spec.addresses import parse_cidr, parse_ip, strip_prefix
from cni_py.spec.delegation import search_folders, validate_plugin_name
from cni_py.spec.errors import CniError
from fuzz.target import require_reportable, require_told, split

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = (
    "-A ",
    "-N ",
    "-P ",
    "CNI-FORWARD",
    "nameserver ",
    "search ",
    "options ",
    "domain ",
    "net.",
    "IFNAME",
)


def seeds() -> Iterator[bytes]:
    yield (
        b"iptables\n-P INPUT ACCEPT\n-N CNI-FORWARD\n" + b"-A X -s 10.1.0.2/32 -j CNI-FORWARD\n-A Y"
    )
    yield (
        b"iptables\n-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "
        b'"dnat name: \\"n\\" id: \\"c\\"" -m multiport --dports 80 -j CNI-DN-x\n'
        b"-A CNI-DN-x -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00::2]:80\n"
    )
    yield b"resolv\n# x\nnameserver 10.1.0.1\nsearch a b\noptions ndots:5\ndomain a\n"
    for line in (
        "net.ipv4.conf.IFNAME.arp_filter",
        "net/ipv4/conf/eth0.5/x",
        "^net\\.ipv4\\.(a|b)*$",
    ):
        yield f"sysctl\n{line}".encode()
    for line in ("10.1.0.0/24", "::ffff:1.2.3.4/120", "fe80::1%eth0", "1.1.0", "bridge"):
        yield f"address\n{line}".encode()


def run(data: bytes) -> None:
    words, content = split(data)
    text = os.fsdecode(content)
    kind = words[0] if words else ""
    try:
        if kind == "iptables":
            _iptables(text)
        elif kind == "resolv":
            dns = parse_resolv_conf(content.decode(errors="replace"))
            assert all(one and not one.isspace() for one in (*dns.nameservers, *dns.search))
        elif kind == "sysctl":
            _sysctl(text)
        else:
            _address(text)
    except CniError as error:
        require_reportable(error, data)


def _iptables(text: str) -> None:
    run, iptables._run = iptables._run, lambda *_: text
    try:
        iptables.chains(4, "filter")
        iptables.rules(4, "filter", "X")
        iptables.forward_drops(4)
        rules_in(iptables.listing(4, "nat"), 4)
    finally:
        iptables._run = run


def _sysctl(text: str) -> None:
    for name, one in tuning_sysctl.parse({text: "1"}, "eth0").items():
        # Within /proc/sys/net, whatever the name was.
        assert os.path.normpath(f"/proc/sys/{one.path}").startswith("/proc/sys/net/"), name
        assert "\0" not in one.path


def _address(text: str) -> None:
    for read in (parse_ip, parse_cidr, strip_prefix):
        try:
            value = read(text)
        except ValueError as error:
            require_told(error)
        else:
            assert read(str(value)) == value
    search_folders(text)
    for check in (versions.parse, validate_plugin_name):
        try:
            check(text)
        except CniError as error:
            require_reportable(error, text.encode(errors="surrogateescape"))
