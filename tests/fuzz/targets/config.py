"""From stdin to what a plugin is going to do: decoding, and the steps that need no kernel."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cni_py.cluster.lease_file import Lease
from cni_py.ipam import allocating, cluster, dhcp, host_local, static
from cni_py.kernel import addresses, dhcp_messages, links, routes
from cni_py.names import Network, configuration, publishing
from cni_py.plugins import (
    bandwidth_config,
    bridge_config,
    dns_config,
    dummy,
    host_device_config,
    ipvlan,
    macvlan,
    overlay_config,
    port_mappings,
    ptp,
    sbr_plan,
    services,
    tap,
    tuning_config,
    vlan,
    vrf,
)
from cni_py.skel import EXECUTABLES
from cni_py.spec.addresses import parse_cidr
from cni_py.spec.call import gate_version, read_request, typed_call, valid_attachments
from cni_py.spec.environment import VERBS, Environment
from cni_py.spec.errors import CniError, require_none
from fuzz.target import RESULT, configurations, require_reportable, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni_py.spec.call import Call, Request

JSON = True

MODULES = {name: import_module(one.module) for name, one in EXECUTABLES.items()}
NAMES = sorted(EXECUTABLES)
_LEASE = Lease((parse_cidr("10.1.0.0/16"),), (parse_cidr("10.1.2.0/24"),), 1450, False)
_VERBS = sorted(VERBS - {"VERSION"})


def seeds() -> Iterator[bytes]:
    for one in configurations():
        for verb in _VERBS:
            yield _seed(one["type"], verb, {**one, **_extra(verb)})
            ipam = one.get("ipam", {}).get("type")
            if ipam in EXECUTABLES:
                yield _seed(ipam, verb, {**one, **_extra(verb)})
    for key, old in (("macvlan", "0.2.0"), ("bridge", "0.3.1"), ("portmap", "0.4.0")):
        yield _seed(key, "ADD", {"cniVersion": old, "name": "n", "type": key})
    yield _seed("portmap", "ADD", _PORTS)
    yield _seed("bandwidth", "ADD", _RATES)
    yield _seed("dns", "ADD", {**_BASE, **_DNS})
    yield _seed("sbr", "ADD", {**_BASE, "gateways": ["10.1.0.1"], "addSourceHints": True})
    yield _seed("services", "ADD", {**_BASE, "services": _SERVICES, "runtimeConfig": _ANNOTATED})
    yield _seed("tap", "ADD", {**_BASE, "owner": 1, "mac": "02:00:00:00:00:07", "mtu": 1400})
    yield _seed("host-device", "ADD", {**_BASE, "hwaddr": "02:00:00:00:00:07"})
    yield _seed("host-device", "ADD", {**_BASE, "pciBusID": "0000:00:04.0"})
    yield _seed("host-device", "ADD", {**_BASE, "kernelpath": "/sys/devices/pci0000:00/x"})
    yield _seed(
        "host-local", "ADD", {**_BASE, "ipam": _OLDER, "args": {"cni": {"ips": ["10.1.0.9"]}}}
    )


def _seed(plugin: str, verb: str, configuration: dict[str, Any]) -> bytes:
    return f"{plugin} {verb}\n{json.dumps(configuration)}".encode()


def _extra(verb: str) -> dict[str, Any]:
    if verb == "GC":
        return {"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    return {} if verb == "STATUS" else {"prevResult": RESULT}


_BASE: dict[str, Any] = {"cniVersion": "1.1.0", "name": "n", "prevResult": RESULT}
_MAPPINGS = [
    {"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "192.0.2.1"},
    {"hostPort": 81, "containerPort": 81, "protocol": "udp", "hostIP": "::"},
]
_PORTS = {
    **_BASE,
    "backend": "iptables",
    "markMasqBit": 13,
    "conditionsV4": ["-s", "10.0.0.0/8"],
    "runtimeConfig": {"portMappings": _MAPPINGS},
}
_RATES = {
    **_BASE,
    "runtimeConfig": {
        "bandwidth": {
            "ingressRate": 1000000,
            "ingressBurst": 800000,
            "egressRate": 10**9,
            "egressBurst": 10**9,
            "unshapedSubnets": ["10.0.0.0/8", "fd00::/8"],
        }
    },
}
_SERVICES = [
    {
        "name": "web",
        "port": 8080,
        "protocol": "tcp",
        "weight": 2,
        "metadata": {"version": "2"},
        "check": {"type": "http", "path": "/ping", "host": "web", "intervalSeconds": 0.5},
    }
]
_ANNOTATED = {services.ANNOTATIONS: {services.ANNOTATION: json.dumps(_SERVICES)}}
_DNS = {
    "domainName": "dns.podman",
    "upstream": ["9.9.9.9", "fd00::53#5353"],
    "ttl": 5,
    "runtimeConfig": {"aliases": {"n": ["api", "www.shop"]}},
    "args": {"cni": {"name": "web-1", "aliases": ["db"]}},
}
_OLDER = {
    "type": "host-local",
    "subnet": "10.1.0.0/24",
    "rangeStart": "10.1.0.5",
    "rangeEnd": "10.1.0.9",
    "gateway": "10.1.0.1",
    "routes": [{"dst": "0.0.0.0/0"}],
}


def run(data: bytes) -> None:
    words, stdin = split(data)
    name = words[0] if words and words[0] in MODULES else NAMES[len(data) % len(NAMES)]
    verb = words[1] if len(words) > 1 and words[1] in VERBS else "ADD"
    environment = Environment(verb, "c1", "/run/netns/c1", "eth0", "", "/nonexistent", "")
    try:
        request = gate_version(read_request(environment, {}, stdin), EXECUTABLES[name].versions)
        call = _call(name, request)
        plan = PLANS.get(name)
        if plan is not None and verb in ("ADD", "CHECK", "STATUS"):
            plan(call)
    except CniError as error:
        require_reportable(error, data)


def _call(name: str, request: Request) -> Call[Any]:
    module = MODULES[name]
    verb = request.environment.verb
    if verb == "GC":
        valid_attachments(request)
    return typed_call(request, module.DelConfig if verb in ("DEL", "GC") else module.Config)


# What the plugins reckon before they touch anything, down to the messages to the kernel.


def _bridge(call: Call[Any]) -> None:
    plan = bridge_config.plan_of(call)
    links.create_bridge(
        call.config.bridge, mtu=plan.mtu, mac=plan.mac, vlan_filtering=True, group=1
    )


def _bandwidth(call: Call[Any]) -> None:
    from cni_py.kernel import tc
    from cni_py.plugins import shaping

    plan = bandwidth_config.plan_of(call.config)
    link = (1, "eth0")
    for bucket in (plan.ingress, plan.egress):
        if bucket is not None:
            tc.tbf(link, 1, bucket)
            tc.htb_class(link, 1, bucket)
            tc.bfifo(link, 1, 1, shaping.waiting(bucket))
    for one in (*shaping.sorting(plan), *shaping.leading(plan, 1)):
        tc.add_filter(link, 1, one)


def _portmap(call: Call[Any]) -> None:
    from cni_py.kernel import iptables

    require_none(port_mappings.mistakes(call))
    for tokens in port_mappings.conditions_of(call.config).values():
        # Each is one line of iptables-restore's input.
        assert "\n" not in " ".join(map(iptables.quoted, tokens))
    chain, bit = port_mappings.mark_of(call.config)
    assert chain
    assert 0 <= bit < 32
    if call.prev_result is not None:
        for one in port_mappings.mapped(call.config, call.prev_result, call.ifname)[0]:
            assert 0 < one.host_port < 65536
            assert 0 < one.container_port < 65536


def _sbr(call: Call[Any]) -> None:
    ips = () if call.prev_result is None else call.prev_result.ips
    planned = sbr_plan.plan(ips, call.config, [], [], [])
    for one in planned.sources:
        if one.gateway is not None:
            routes.add(1, "eth0", sbr_plan.default_of(one), one.gateway)
        addresses.add(1, "eth0", one.address)


def _overlay(call: Call[Any]) -> None:
    """Down to what the delegate reads, where that is ours."""
    require_none(overlay_config.mistakes(call))
    config = call.config
    made = overlay_config.document(call.request, config.delegate_type, config.delegate, _LEASE)
    kept = overlay_config.kept(made)
    json.dumps(kept)
    request = overlay_config.as_request(call.request, overlay_config.passed_on(kept, call.request))
    if config.delegate_type in overlay_config.MODULES:
        typed_call(request, MODULES[config.delegate_type].Config)


def _cluster(call: Call[Any]) -> None:
    require_none(cluster.mistakes(call))
    cluster._name(call)
    allocating.requested(call)


def _dns(call: Call[Any]) -> None:
    require_none(dns_config.mistakes(call))
    names = dns_config.names_of(call)
    network = Network(
        name="net1",
        domain=call.config.domain,
        addresses=("10.1.0.1",),
        upstream=dns_config.upstream_of(call.config),
        ttl=call.config.ttl,
    )
    for line in configuration.text_of(network, "dnsmasq", "nogroup").splitlines():
        key, _, value = line.partition("=")
        # Each is one option with one value.
        assert key.replace("-", "").isalpha(), line
        assert value.split() in ([], [value]), line
    for text in publishing.lines_of(network, [("10.1.0.2", names)]).values():
        assert " ".join(text).split() == text


def _host_local(call: Call[Any]) -> None:
    sets = host_local._sets(call)
    allocating.wanted_of(sets, allocating.requested(call))


def _dhcp(call: Call[Any]) -> None:
    given = dhcp._options(call, dhcp._ipam(call.config))
    sent = dhcp_messages.Message(1, 1, bytes(6), given | {53: b"\1"})
    assert dhcp_messages.decode(dhcp_messages.encode(sent)).options == sent.options


PLANS: dict[str, Callable[[Call[Any]], object]] = {
    "bandwidth": _bandwidth,
    "bridge": _bridge,
    "cluster": _cluster,
    "dhcp": _dhcp,
    "dns": _dns,
    "dummy": dummy.checked,
    "flannel": _overlay,
    "host-device": host_device_config.selection_of,
    "host-local": _host_local,
    "ipvlan": ipvlan.child_of,
    "macvlan": macvlan.child_of,
    "overlay": _overlay,
    "portmap": _portmap,
    "ptp": ptp.plan_of,
    "sbr": _sbr,
    "services": services.wanted,
    "static": static.add,
    "tap": tap.plan_of,
    "tuning": tuning_config.wanted,
    "vlan": vlan.child_of,
    "vrf": vrf.checked,
}
