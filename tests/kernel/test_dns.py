"""dns: containers of a network find one another by name, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures import leases
from fixtures.chains import attach, bridged
from fixtures.configs import V4, V6, host_local
from fixtures.dump import differences, dump
from fixtures.host import Host, refusal
from fixtures.named import GATEWAY, call, join, leave, named
from fixtures.parents import uplink
from fixtures.resolver import ask

NONE = ("NXDOMAIN", [], None)
FOLDER = "/run/cni-py/dns"
PODMAN = "IgnoreUnknown=1;K8S_POD_NAMESPACE={0};K8S_POD_NAME={0};K8S_POD_INFRA_CONTAINER_ID=x"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers are run without a Python start for each call."""
    if Host.mode == "standalone":
        monkeypatch.setattr(Host, "mode", "in-process")


def test_containers_find_one_another_in_every_form(host: Host) -> None:
    network = named()
    web, client = host.container("web"), host.container("client")
    result = join(host, network, web, "Web", "api", "www.shop")
    join(host, network, client, "client")
    assert result["dns"] == {
        "nameservers": [GATEWAY, "fd00:1::1"],
        "domain": "cni.internal",
        "search": ["cni.internal"],
    }
    for server in result["dns"]["nameservers"]:
        for name in ("web", "api", "www.shop", "WEB"):
            for form in (name, f"{name}.cni.internal"):
                assert ask(client, server, form).records == ["10.1.2.2"]
                assert ask(client, server, form, "AAAA").records == ["fd00:1::2"]
        assert ask(client, server, "10.1.2.2", "PTR").records == ["web.cni.internal."]
        assert ask(client, server, "fd00:1::2", "PTR").records == ["web.cni.internal."]
        assert ask(client, server, "web", tcp=True).records == ["10.1.2.2"]
        assert ask(web, server, "client").records == ["10.1.2.3"]
    assert ask(client, GATEWAY, "web").ttl == 0
    leave(host, network, web)
    assert ask(client, GATEWAY, "web.cni.internal") == NONE
    assert ask(client, GATEWAY, "10.1.2.2", "PTR") == NONE


def test_a_name_without_an_address_of_a_family_exists_still(host: Host) -> None:
    """NODATA: musl takes NXDOMAIN for either family as the name's end."""
    network = named()
    network["plugins"][0]["ipam"] = host_local(V4)
    web = host.container("web")
    join(host, network, web, "web")
    for form in ("web", "web.cni.internal"):
        assert ask(web, GATEWAY, form, "AAAA") == ("NOERROR", [], None)
    assert ask(web, GATEWAY, "web.cni.internal", "MX") == ("NOERROR", [], None)
    assert ask(web, GATEWAY, "other.cni.internal", "AAAA") == NONE


def test_each_network_has_its_own_names(host: Host) -> None:
    one = named("one", internal=True)
    other = named("other", domainName="other.test", internal=True, ttl=7)
    other["plugins"][0]["ipam"] = host_local([{"subnet": "10.1.3.0/24"}])
    web, client = host.container("web"), host.container("client")
    join(host, one, web, "web")
    result = join(host, other, client, "client")
    assert result["dns"]["search"] == ["other.test"]
    for form in ("web", "web.cni.internal", "web.other.test"):
        assert ask(client, "10.1.3.1", form).code == "NXDOMAIN"
    assert ask(web, GATEWAY, "client").code == "NXDOMAIN"
    told = ask(client, "10.1.3.1", "client.other.test")
    assert (told.records, told.ttl) == (["10.1.3.2"], 7)


def test_podman_with_dnsname(host: Host) -> None:
    """The list that `podman network create` wrote, and what podman passes by it."""
    network = bridged("podnet", ipam=host_local(V4))
    network["cniVersion"] = "0.4.0"
    dnsname = {
        "type": "dnsname",
        "domainName": "dns.podman",
        "capabilities": {"aliases": True},
    }
    network["plugins"] += [{"type": "firewall", "backend": "nftables"}, dnsname]
    containers = [host.container(f"c{one}", str(one) * 64) for one in range(2)]
    for number, container in enumerate(containers):
        env = {"CNI_ARGS": PODMAN.format(f"web_{number}")}
        aliases = {"podnet": [str(number) * 12, "shop"], "elsewhere": ["not.here"]}
        result: dict[str, Any] = {}
        for one in network["plugins"]:
            config = {**one, "name": "podnet", "cniVersion": "0.4.0"}
            config |= {"prevResult": result} if result else {}
            if one["type"] == "dnsname":
                config["runtimeConfig"] = {"aliases": aliases}
            result = host.add(one["type"], config, container, env=env)
    assert result["dns"] == {
        "nameservers": [GATEWAY],
        "domain": "dns.podman",
        "search": ["dns.podman"],
    }
    first, second = containers
    for form in ("web_0", "web_0.dns.podman", "web_0.web_0", "0" * 12):
        assert ask(second, GATEWAY, form).records == ["10.1.2.2"]
    assert ask(first, GATEWAY, "shop.dns.podman").records == ["10.1.2.2", "10.1.2.3"]
    assert ask(first, GATEWAY, "not.here.dns.podman") == NONE


def test_two_containers_of_one_name_are_both_found(host: Host) -> None:
    network = named()
    first, second = host.container("first"), host.container("second")
    join(host, network, first, "web")
    join(host, network, second, "web", "api")
    assert ask(first, GATEWAY, "web").records == ["10.1.2.2", "10.1.2.3"]
    leave(host, network, first)
    assert ask(second, GATEWAY, "web").records == ["10.1.2.3"]


def test_a_container_that_nobody_named_has_its_id(host: Host) -> None:
    network = named()
    long, short = host.container("long", "0123456789ab" + "cdef" * 13), host.container("c2", "Sb-1")
    join(host, network, long)
    join(host, network, short)
    assert ask(long, GATEWAY, "0123456789ab").records == ["10.1.2.2"]
    assert ask(long, GATEWAY, "sb-1").records == ["10.1.2.3"]


def test_the_capability_as_the_conventions_have_it(host: Host) -> None:
    network = named(capabilities={"aliases": True})
    web = host.container("web")
    attach(host, network, web, aliases=["primary-db", "db"])
    for name in ("primary-db", "db"):
        assert ask(web, GATEWAY, name).records == ["10.1.2.2"]


def test_what_an_earlier_plugin_says_of_dns(host: Host) -> None:
    """Other servers would say that the names do not exist; domains to search stay behind ours."""
    network = named()
    network["plugins"][0]["dns"] = {
        "nameservers": ["192.0.2.53"],
        "search": ["corp.example", "cni.internal"],
        "options": ["ndots:2"],
    }
    web = host.container("web")
    assert join(host, network, web, "web")["dns"] == {
        "nameservers": [GATEWAY, "fd00:1::1"],
        "domain": "cni.internal",
        "search": ["cni.internal", "corp.example"],
        "options": ["ndots:2"],
    }


@pytest.mark.parametrize("plugin", ["ptp", "overlay"])
def test_other_plugins_with_a_gateway_on_the_host(host: Host, plugin: str) -> None:
    """With ptp each container has an interface of its own on the host, all with one address."""
    main: dict[str, Any] = {"type": "ptp", "ipam": host_local(V4, V6)}
    if plugin == "overlay":
        leases.lease(host)
        main = {"type": "overlay"}
    network = named()
    network["plugins"][0] = main
    web, client = host.container("web"), host.container("client")
    servers = join(host, network, web, "web")["dns"]["nameservers"]
    result = join(host, network, client, "client")
    assert result["dns"]["nameservers"] == servers
    for server in servers:
        assert ask(client, server, "web", "AAAA" if ":" in server else "A").records != []
        assert ask(web, server, "client", tcp=True).code == "NOERROR"
    leave(host, network, web)
    assert ask(client, servers[0], "web.cni.internal") == NONE
    assert len(host.name_servers()) == 1


def test_a_network_without_an_address_on_the_host_is_refused(host: Host) -> None:
    uplink(host, "macvlan")
    network = named()
    network["plugins"][0] = {"type": "macvlan", "master": "up0", "ipam": host_local(V4)}
    web = host.container("web")
    main = network["plugins"][0] | {"name": "net1", "cniVersion": "1.1.0"}
    result = host.add("macvlan", main, web)
    before = dump(host)
    error = refusal(call(host, "ADD", network, web, prevResult=result))
    assert (error["code"], error["msg"]) == (
        7,
        "network net1 has no address on this host to answer names at",
    )
    assert "isGateway" in error["details"]
    assert differences(before, dump(host)) == ""


@pytest.mark.parametrize(
    "args",
    [
        "K8S_POD_NAME=web\n10.9.9.9 bank",
        "K8S_POD_NAME=web bank",
        "K8S_POD_NAME=--server",
        f"K8S_POD_NAME={'x' * 64}",
        "K8S_POD_NAME=web;K8S_POD_NAMESPACE=a b",
    ],
)
def test_poisoned_names_of_pods_are_refused(host: Host, args: str) -> None:
    network = named()
    web, other = host.container("web"), host.container("other")
    join(host, network, other, "other")
    main = network["plugins"][0] | {"name": "net1", "cniVersion": "1.1.0"}
    result = host.add("bridge", main, web)
    before = dump(host)
    config = network["plugins"][1] | {"name": "net1", "cniVersion": "1.1.0", "prevResult": result}
    error = refusal(host.call("dns", "ADD", config, web, env={"CNI_ARGS": args}))
    assert error["code"] == 4
    assert error["msg"].startswith("K8S_POD_NAME")
    assert differences(before, dump(host)) == ""
    assert ask(other, GATEWAY, "bank.cni.internal") == NONE


def test_check_compares_file_process_and_answer(host: Host) -> None:
    network = named()
    web = host.container("web")
    result = join(host, network, web, "web", "api")

    def check(*names: str) -> Any:
        return call(host, "CHECK", network, web, *names, prevResult=result)

    assert check("web", "api").status == 0
    assert "names differs" in refusal(check("web"))["msg"]
    path = host.run("sh", "-c", f"ls {FOLDER}/net1/hosts/*").stdout.strip()
    kept = host.run("cat", path).stdout
    host.run("sh", "-c", f"grep -v fd00 {path} >/run/new; mv /run/new {path}")
    assert "names differs" in refusal(check("web", "api"))["msg"]
    host.run("rm", path)
    assert "nothing is kept" in refusal(check("web", "api"))["msg"]
    host.run("sh", "-c", f"cat > /run/new; chmod 644 /run/new; mv /run/new {path}", stdin=kept)
    assert check("web", "api").status == 0
    leave(host, network, web)
    assert "nothing is kept" in refusal(check("web", "api"))["msg"]


def test_gc_takes_back_what_the_runtime_does_not_list(host: Host) -> None:
    network = named()
    web, client = host.container("web"), host.container("client")
    join(host, network, web, "web")
    join(host, network, client, "client")
    valid = [{"containerID": client.id, "ifname": "eth0"}]
    outcome = call(host, "GC", network, **{"cni.dev/valid-attachments": valid})
    assert outcome.status == 0, outcome
    assert ask(client, GATEWAY, "web.cni.internal") == NONE
    assert ask(client, GATEWAY, "client").records == ["10.1.2.3"]
    outcome = call(host, "GC", network, **{"cni.dev/valid-attachments": []})
    assert outcome.status == 0, outcome
    assert host.name_servers() == []
    assert host.run("ls", FOLDER).stdout == ""


def test_gc_without_a_list_goes_by_what_is_evident(host: Host) -> None:
    network = named()
    web, client = host.container("web"), host.container("client")
    join(host, network, web, "web")
    join(host, network, client, "client")
    web.delete_netns()
    host.run("sh", "-c", "while ip link show type veth | grep -q 'link-netnsid 0'; do :; done")
    assert call(host, "GC", network).status == 0
    assert ask(client, GATEWAY, "web.cni.internal") == NONE
    assert ask(client, GATEWAY, "client").records == ["10.1.2.3"]


def test_a_second_add_replaces_the_names(host: Host) -> None:
    network = named()
    web = host.container("web")
    result = join(host, network, web, "web")
    again = call(host, "ADD", network, web, "shop", prevResult=result)
    assert again.status == 0, again
    assert ask(web, GATEWAY, "shop").records == ["10.1.2.2"]
    assert ask(web, GATEWAY, "web.cni.internal") == NONE


def test_the_last_one_leaves_nothing(host: Host) -> None:
    network = named()
    web, client = host.container("web"), host.container("client")
    join(host, network, web, "web")
    join(host, network, client, "client")
    assert len(host.name_servers()) == 1
    leave(host, network, web)
    assert len(host.name_servers()) == 1
    leave(host, network, client)
    leave(host, network, client)
    assert host.name_servers() == []
    assert host.run("ls", FOLDER).stdout == ""


def test_del_of_what_was_never_there(host: Host) -> None:
    assert call(host, "DEL", named(), host.container("web")).status == 0


def test_a_file_that_says_something_else_goes_all_the_same(host: Host) -> None:
    network = named()
    web, client = host.container("web"), host.container("client")
    join(host, network, web, "web")
    join(host, network, client, "client")
    for path in host.run("sh", "-c", f"ls {FOLDER}/net1/hosts/*").stdout.split():
        host.run("sh", "-c", f"rm {path}; mkdir {path}")
    host.run("sh", "-c", f"echo garbage > {FOLDER}/net1/network.json")
    leave(host, network, web)
    leave(host, network, client)
    assert host.name_servers() == []
    assert host.run("ls", FOLDER).stdout == ""
