"""The configuration file of a network's dnsmasq (dnsmasq(8)); nothing of it comes unchecked."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni_py.spec.addresses import parse_ip
from cni_py.spec.dns_names import dns_name, reverse_zones

if TYPE_CHECKING:
    from .network import Network

RESOLV_CONF = "/etc/resolv.conf"
# Of queries that wait for another server: beyond it one is refused, and the network's names go on.
_MOST_FORWARDED = 1000
_CACHED_NAMES = 1000


def file_of(network: Network) -> str:
    """Where the file is."""
    return f"{network.folder}/dnsmasq.conf"


def pid_file_of(network: Network) -> str:
    """Where dnsmasq writes its number."""
    return f"{network.folder}/dnsmasq.pid"


def text_of(network: Network, user: str, group: str) -> str:
    """The file's text, with whom dnsmasq becomes. Raises ValueError for what is no name."""
    domain = dns_name(network.domain)
    lines = [
        f"user={user}",
        f"group={group}",
        f"pid-file={pid_file_of(network)}",
        # These addresses alone, and also when they come back after they had gone.
        "bind-dynamic",
        *(f"listen-address={parse_ip(one)}" for one in network.addresses),
        "no-hosts",
        f"hostsdir={network.hosts}",
        f"local-ttl={network.ttl}",
        # What is not known of the network's own names is known by nobody else.
        f"local=/{domain}/",
        *(f"local=/{zone}/" for zone in _zones(network)),
        # Names of one label are the network's.
        "domain-needed",
        f"dns-forward-max={_MOST_FORWARDED}",
        f"cache-size={_CACHED_NAMES}",
        # Other resolvers may know other things.
        "clear-on-reload",
        # A resolver that asks us in turn is left out.
        "dns-loop-detect",
        *_upstream(network),
    ]
    return "".join(f"{line}\n" for line in lines)


def _upstream(network: Network) -> list[str]:
    if network.upstream is None:
        return [f"resolv-file={RESOLV_CONF}"]
    if not network.upstream:
        return ["no-resolv", "local=/#/"]
    return ["no-resolv", *(f"server={one}" for one in network.upstream)]


def _zones(network: Network) -> list[str]:
    subnets = [ip_network(one) for one in network.subnets]
    return list(dict.fromkeys(zone for one in subnets for zone in reverse_zones(one)))
