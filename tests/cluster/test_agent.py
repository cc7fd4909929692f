"""Agents as processes on several hosts, with a real etcd and real packets."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from faults import cluster_scenarios as scenarios

from fixtures.agents import COMMAND, Cluster
from fixtures.api_server import ApiServer
from fixtures.controller import Controller
from fixtures.sandbox import Sandbox
from fixtures.underlay import entered, eventually, reaches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fixtures.underlay import Underlay

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(underlay: Underlay) -> Iterator[Cluster]:
    """An etcd with a network, and containers on the hosts."""
    with closing(Cluster.start(underlay)) as cluster:
        cluster.containers()
        yield cluster


def tried(cluster: Cluster, scenario: Callable[..., scenarios.Measured], seconds: float) -> None:
    measured = scenario(cluster, seconds)
    assert measured.lost == 0, scenario.__name__


def test_a_node_joins_is_looked_at_and_leaves(cluster: Cluster) -> None:
    cluster.etcd.ctl("put", "/cni-py/pools/lan/config", '{"network": "10.50.0.0/16"}')
    cluster.join(
        options=("--subnet-file=/run/flannel/subnet.env", "--healthz-port=8089", "--pool=lan")
    )
    cluster.settle()
    members = cluster.underlay.members
    for one, other in ((1, 2), (1, 3), (3, 2)):
        for version in (4, 6):
            assert reaches(members[one], members[other], version), (one, other, cluster.told())
    # As flannel has it, with the node's identity beside.
    assert cluster.etcd.keys() == sorted(
        ["config", *(f"subnets/10.244.{n}.0-24&fd00:244:0:{n}::-64" for n in (1, 2, 3))]
    )
    value = cluster.etcd.value("subnets/10.244.1.0-24&fd00:244:0:1::-64")
    assert value.keys() == {
        "PublicIP", "PublicIPv6", "BackendType", "BackendData", "BackendV6Data", "CniPy"
    }  # fmt: skip
    assert (value["PublicIP"], value["PublicIPv6"]) == ("192.168.1.1", "fd00:1:0:1::1")
    assert (value["BackendType"], value["BackendData"]["VNI"]) == ("vxlan", 1)

    agent = cluster.agents[1]
    told = agent.file()
    assert told is not None
    assert (told.ipv4_network, told.ipv4_subnet) == ("10.244.0.0/16", "10.244.1.0/24")
    assert (told.mtu, told.lease, told.code, agent.problem()) == (1430, "held", 0, 0)
    environment = agent.path("/run/flannel/subnet.env").read_text().splitlines()
    assert "FLANNEL_SUBNET=10.244.1.1/24" in environment
    assert "FLANNEL_IPV6_SUBNET=fd00:244:0:1::1/64" in environment
    said = agent.host.run(COMMAND, "agent", "status")
    assert said.status == 0
    assert "10.244.2.0/24 and fd00:244:0:2::/64" in said.stdout
    metrics = agent.host.run("busybox", "wget", "-qO-", "http://127.0.0.1:8089/metrics").stdout
    assert "cni_py_agent_ready 1" in metrics.splitlines()
    assert "cni_py_agent_peers 2" in metrics.splitlines()
    pool = agent.path("/run/cni-py/cluster/pools/lan.json")
    assert eventually(lambda: pool.exists() and json.loads(pool.read_text())["blocks"])
    # A second one has no business here.
    second = agent.host.run(COMMAND, "agent", check=False)
    assert (second.status, "another agent runs" in second.stderr) == (1, True)

    # Stopped, it leaves everything, and STATUS says that nobody follows changes.
    agent.end()
    told = agent.file()
    assert agent.problem() == 51
    assert reaches(members[1], members[2])
    # Started while the store is away, it changes nothing: what its predecessor wrote is true.
    cluster.etcd.kill()
    agent.start()
    assert agent.has_told("no network")
    assert agent.file() == told
    assert agent.problem() == 0
    assert reaches(members[1], members[2])
    cluster.etcd.start()
    assert eventually(agent.is_ready, 30)

    # Given back: the others forget it, and nothing is left on the host.
    assert agent.host.run(COMMAND, "agent", "release").status == 0
    assert agent.process is not None
    assert agent.process.wait(30) == 0
    assert agent.file() is None
    assert agent.problem() == 50
    assert members[1].host.link("flannel.1") is None
    assert "proto 67" not in members[1].host.run("ip", "route").stdout
    assert eventually(lambda: len(cluster.agents[2].peers()) == 1)
    assert "subnets/10.244.1.0-24&fd00:244:0:1::-64" not in set(cluster.etcd.keys())


@pytest.mark.parametrize("underlay", [(1, 1, 1)], indirect=True)
def test_what_happens_to_a_host_does_not_concern_the_others(cluster: Cluster) -> None:
    cluster.join(ttl=scenarios.TTL)
    cluster.settle()
    tried(cluster, scenarios.agent_restarted, 0)
    tried(cluster, scenarios.mtu_changed, 0)
    tried(cluster, scenarios.device_deleted, 0)
    tried(cluster, scenarios.interface_down, 0)
    tried(cluster, scenarios.hostile_records, 0)
    tried(cluster, scenarios.host_cut_off, 0)
    tried(cluster, scenarios.same_subnet, 0)
    tried(cluster, scenarios.clocks_off, 0)
    tried(cluster, scenarios.subnet_stolen, 0)


@pytest.mark.parametrize("underlay", [(1, 1, 1)], indirect=True)
def test_the_store_may_go_forget_and_come_back(cluster: Cluster) -> None:
    cluster.join(ttl=scenarios.TTL)
    cluster.settle()
    tried(cluster, scenarios.store_down, scenarios.TTL + 1)
    tried(cluster, scenarios.store_restored, 0)
    tried(cluster, scenarios.store_empty, 0)


@pytest.mark.parametrize("underlay", [(1, 1, 1)], indirect=True)
def test_two_nodes_do_not_have_one_address_or_one_subnet(cluster: Cluster) -> None:
    cluster.join(1, options=("--subnet=10.244.1.0/24", "--subnet=fd00:244:0:1::/64"))
    assert cluster.agents[1].has_told("subnet")
    cluster.join(2, options=("--subnet=10.244.1.0/24,fd00:244:0:1::/64",), fixed=False)
    cluster.join(3, options=("--public-ip=192.168.1.1", "--public-ipv6=fd00:1:0:1::1"), fixed=False)
    assert cluster.agents[2].has_told("no subnet")
    assert "10.244.1.0" in cluster.agents[2].events("no subnet")[0]["why"]
    assert cluster.agents[1].has_told("duplicate address")
    assert cluster.agents[3].has_told("no subnet")
    assert "is alive" in cluster.agents[3].events("no subnet")[0]["why"]
    assert [cluster.agents[n].problem() for n in (1, 2, 3)] == [0, 50, 50]
    # Once the other has gone, its subnet can be had.
    cluster.agents[1].ask("/release", "POST")
    assert cluster.agents[2].has_told("subnet")
    assert cluster.agents[3].has_told("subnet")


@pytest.mark.parametrize("underlay", [(1, 1, 1)], indirect=True)
def test_a_change_of_the_network_is_followed(cluster: Cluster) -> None:
    cluster.join(1, 2)
    cluster.settle()
    config = {"Network": "10.244.0.0/16", "EnableIPv6": True, "IPv6Network": "fd00:244::/48"}
    place = f"--etcd-endpoints={cluster.etcd.endpoints}"
    host = cluster.underlay.members[1].host

    def put(**backend: object) -> subprocess.CompletedProcess[str]:
        text = json.dumps(config | {"Backend": backend})
        return host.run(COMMAND, "agent", place, "config", "set", "-", stdin=text, check=False)

    refused = put(Type="carrier-pigeon")
    assert (refused.status, "carrier-pigeon" in refused.stderr) == (2, True)
    config["Network"] = "10.0.0.0/24"
    refused = put(Type="host-gw")
    assert (refused.status, "is leased" in refused.stderr) == (1, True)
    config["Network"] = "10.244.0.0/16"
    assert put(Type="host-gw").status == 0
    members = cluster.underlay.members
    assert eventually(lambda: members[1].host.link("flannel.1") is None, 30), cluster.told()
    cluster.settle()
    host = members[1].host
    way = "10.244.2.0/24 via 192.168.1.2 dev eth0"
    assert eventually(lambda: way in host.run("ip", "route").stdout), cluster.told()
    assert reaches(members[1], members[2])
    told = cluster.agents[1].file()
    assert told is not None
    assert (told.backend, told.mtu, told.ipv4_subnet) == ("host-gw", 1500, "10.244.1.0/24")


@pytest.mark.parametrize("underlay", [(1,)], indirect=True)
def test_what_a_backend_says_of_itself_is_the_nodes_status(underlay: Underlay) -> None:
    with entered(underlay.members[1].host):
        controller = Controller()
    backend = {"Type": "webhook", "URL": controller.url}
    with closing(controller), closing(Cluster.start(underlay, Backend=backend)) as cluster:
        controller.health = {"status": "degraded", "message": "no switch"}
        # It is asked as often as everything is compared.
        cluster.join(1, options=("--reconcile-seconds=1",))
        agent = cluster.agents[1]
        wanted = "the controller's network does not reach all nodes"
        assert eventually(lambda: wanted in agent.status().get("problem", ""), 30), cluster.told()
        assert agent.problem() == 51
        assert "no switch" in str(agent.file())
        controller.health = {"status": "ok"}
        assert eventually(lambda: agent.problem() == 0, 30), cluster.told()


@pytest.mark.parametrize("underlay", [(1, 1)], indirect=True)
def test_kubernetes_gives_the_subnets(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = cluster.underlay.members[1]
    with entered(member.host):
        api = ApiServer(tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    monkeypatch.setenv("NODE_NAME", "node-1")
    api.specs = [{}]
    given = ("--subnet-from=pod-cidr", f"--account={tmp_path}")
    try:
        cluster.join(1, options=given, fixed=False)
        agent = cluster.agents[1]
        assert agent.has_told("no subnet")
        assert agent.events("no subnet")[0]["why"] == "node node-1 has no podCIDR yet"
        assert agent.problem() == 50
        api.specs = [{"podCIDRs": [str(member.subnet), str(member.subnet6)]}]
        cluster.join(2)
        cluster.settle()
        assert api.seen[0] == "/api/v1/nodes/node-1"
        assert cluster.agents[2].peers() == [f"{member.subnet} and {member.subnet6}"]
        assert reaches(cluster.underlay.members[2], member)
        # While the API server is away, what the former agent wrote holds.
        agent.end()
        told = agent.file()
    finally:
        api.close()
    agent.start()
    assert agent.has_told("no subnet", 2)
    assert "the API server" in agent.events("no subnet")[1]["why"]
    assert (agent.file(), agent.problem()) == (told, 0)


@pytest.mark.parametrize("underlay", [(1, 1)], indirect=True)
def test_the_units_sandbox_holds_what_the_work_needs(cluster: Cluster, tmp_path: Path) -> None:
    sandbox = Sandbox("cni-py-agent.service", tmp_path / "trace")
    cluster.join(1, through=sandbox.through)
    cluster.join(2)
    cluster.settle()
    assert reaches(cluster.underlay.members[1], cluster.underlay.members[2])
    agent = cluster.agents[1]
    assert agent.process is not None
    pid = agent.process.pid
    agent.release()
    assert eventually(lambda: sandbox.has_ended(pid))
    made = {name for name, _ in sandbox.calls()}
    assert made & {"setns", "unshare"} == set()
