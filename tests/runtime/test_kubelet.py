"""The kubelet's path: containerd is asked for pods over the CRI, and runs our executables."""

from __future__ import annotations

import copy
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from tools.containerd import CRI_NAMESPACE
from tools.cri import CriError, Pod, Port

from fixtures.host import Host
from fixtures.kubelet import Node, containerd_2, example, node, until
from fixtures.leaks import leaks
from fixtures.ports import PAGE, UPLINK, outside, page
from fixtures.server import CNI_PY
from fixtures.shaping import qdiscs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

SERVER = ("httpd", "-f", "-h", "/www")
WEB = Port(8080, 80)
# How many pods are started at once: decision 39 has what a hundred take.
PODS = int(os.environ.get("KUBELET_PODS", "20"))
# Bridge alone: the cheapest network that gives a pod all it needs.
PLAIN = example("10-bridge.conflist")
# containerd of version 2 calls STATUS where the list is of the protocol that has it.
NEWEST = example("10-bridge.conflist", cniVersion="1.1.0")


@pytest.fixture
def plain(host: Host, image: Path) -> Iterator[Node]:
    """Debian's containerd, with a bridge."""
    with node(host, image, PLAIN) as started:
        yield started


@pytest.fixture
def newest(host: Host, image: Path) -> Iterator[Node]:
    """A containerd of version 2, with a bridge."""
    with node(host, image, NEWEST, programs=containerd_2()) as started:
        yield started


@pytest.mark.warm
def test_pod_with_a_port_and_limits(host: Host, image: Path) -> None:
    """A hostPort from outside and by localhost, both families, bandwidth in both directions."""
    with node(host, image, example("12-full.conflist")) as whole:
        cri, machine = whole.cri, outside(host)
        assert cri.network().holds
        limits = {"kubernetes.io/ingress-bandwidth": "8M", "kubernetes.io/egress-bandwidth": "4M"}
        web = cri.run(Pod("web", ports=(WEB, Port(8081, 80, "UDP")), annotations=limits))
        container = cri.start(web, *SERVER)
        addresses = cri.addresses(web)
        assert [":" in one for one in addresses] == [False, True]
        shown = cri.exec(container, "ip", "addr", "show", "eth0")
        assert all(f" {one}/" in shown for one in addresses)
        for version in (4, 6):
            assert page(machine, UPLINK[version][0], 8080) == PAGE
        assert page(host, "127.0.0.1", 8080) == PAGE
        for address in addresses:
            assert page(host, address) == PAGE
        assert rates(host) == {"veth": 1_000_000, "bwp": 500_000}
        cri.stop(web)
        assert (
            "refused"
            in machine.run("busybox", "nc", "-w", "5", UPLINK[4][0], "8080", check=False).stderr
        )
        whole.take_down(web)


def rates(host: Host) -> dict[str, int]:
    """The rate in bytes a second of each link that tbf shapes, by the beginning of its name."""
    return {
        name.rstrip("0123456789abcdef"): one["options"]["rate"]
        for name in (link["ifname"] for link in host.ip("link"))
        for one in qdiscs(host, name)
        if one["kind"] == "tbf"
    }


@pytest.mark.warm
def test_pod_that_cannot_have_its_port(host: Host, image: Path) -> None:
    """The kubelet shows our message as the pod's event; nothing of the pod is left."""
    with node(host, image, example("60-portmap.conflist")) as whole:
        first = whole.cri.run(Pod("first", ports=(WEB,)))
        before = leaks(host)
        with pytest.raises(CriError) as refused:
            whole.cri.run(Pod("second", ports=(WEB,)))
        said = str(refused.value)
        assert 'plugin type="portmap" failed' in said
        assert "8080" in said
        assert f"default/{first}" in said or first[:12] in said
        until(lambda: leaks(host) == before, lambda: leaks(host))
        assert list(whole.cri.sandboxes()) == [first]
        whole.take_down(first)
        whole.take_down(whole.cri.run(Pod("second", ports=(WEB,))))


@pytest.mark.warm
def test_network_that_cannot_give_an_address(host: Host, image: Path) -> None:
    """No configuration, a wrong one, a full pool: what the node's condition and a pod's event say.

    containerd 1.x looks whether a list can be loaded, and nothing more.
    """
    with node(host, image, None) as bare:
        condition = bare.cri.network()
        assert not condition.holds
        assert "cni plugin not initialized" in condition.message
        with pytest.raises(CriError, match="cni plugin not initialized"):
            bare.cri.run(Pod("early"))
        # It could not be taken down either: the kubelet does that as soon as there is a network.
        (early,) = bare.cri.sandboxes()
        bare.configure("10-pods.conflist", small_pool(PLAIN))
        until(lambda: bare.cri.network().holds, bare.cri.network)
        first = bare.cri.run(Pod("first"))
        with pytest.raises(CriError, match=r'type="bridge" failed \(add\).*no .*addresses') as full:
            bare.cri.run(Pod("second"))
        assert "10.85.0.2" in str(full.value)
        assert bare.cri.network().holds
        bare.take_down(early, first)


def small_pool(network: dict[str, Any]) -> dict[str, Any]:
    """The network with one address."""
    network = copy.deepcopy(network)
    network["plugins"][0]["ipam"]["ranges"] = [
        [{"subnet": "10.85.0.0/16", "rangeStart": "10.85.0.2", "rangeEnd": "10.85.0.2"}]
    ]
    return network


@pytest.mark.warm
def test_services_of_a_pod(host: Host, image: Path) -> None:
    """A pod's annotation declares them, instead of those of the network; with the pod they go."""
    with node(host, image, example("64-services.conflist")) as whole:
        text = json.dumps([{"name": "api", "port": 9000}])
        pod = whole.cri.run(Pod("api", annotations={"cni-py.dev/services": text}))
        plain = whole.cri.run(Pod("plain"))
        assert sorted(declared(host)) == [("api", pod), ("web", plain)]
        with pytest.raises(CriError, match='type="services" failed'):
            whole.cri.run(Pod("odd", annotations={"cni-py.dev/services": text.replace("api", "A")}))
        whole.take_down(pod, plain)
        assert declared(host) == []


def declared(host: Host) -> list[tuple[str, str]]:
    """The names of services that are written down, and by which sandbox."""
    listed = host.run("sh", "-c", "cat /run/cni-py/services/*.json", check=False).stdout
    found = [json.loads(one)["declaration"] for one in listed.replace("}{", "}\n{").splitlines()]
    return [(each["name"], one["attachment"][1]) for one in found for each in one["services"]]


@pytest.mark.slow
def test_restarts_in_the_middle(plain: Node) -> None:
    """containerd and the server come and go; pods go on, and are taken down whoever is there."""
    cri, host = plain.cri, plain.host
    host.stop_serving()
    first = cri.run(Pod("first"))
    cri.start(first, *SERVER)
    (address, _) = cri.addresses(first)
    host.serve("--idle-workers", "1", forked=True)
    second = cri.run(Pod("second"))
    plain.containerd.kill()
    assert page(host, address) == PAGE
    plain.containerd.restart()
    host.serve("--idle-workers", "1", forked=True)
    assert cri.sandboxes() == {first: True, second: True}
    assert cri.addresses(first)[0] == address
    assert page(host, address) == PAGE
    third = cri.run(Pod("third"))
    assert len({cri.addresses(one)[0] for one in (first, second, third)}) == 3
    cri.stop(first)
    host.stop_serving()
    plain.take_down(first, second, third)


@pytest.mark.slow
def test_containerd_killed_while_pods_start(plain: Node) -> None:
    """The kubelet takes down what containerd knows of afterwards, and nothing else is left."""
    cri, host = plain.cri, plain.host
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(cri.run_together, [Pod(f"pod{index}") for index in range(4)])
        until(lambda: bool(host.allocated("containers")), starting.done)
        plain.containerd.kill()
        assert any(one.error for one in starting.result())
    plain.containerd.restart()
    plain.take_down(*cri.sandboxes())


@pytest.mark.warm
def test_namespace_that_is_gone(plain: Node) -> None:
    """A pod whose namespace somebody has taken away is stopped, and leaves nothing."""
    cri, host = plain.cri, plain.host
    pod = cri.run(Pod("robbed"))
    names = host.run("ls", "/run/netns").stdout.split()
    host.run("sh", "-c", "umount -n /run/netns/cni-* && rm /run/netns/cni-*")
    assert len(names) == 1
    plain.take_down(pod)


@pytest.mark.warm
def test_pods_that_vanished(plain: Node, image: Path) -> None:
    """A node loses containerd's memory and every process at once; `gc` finds what they had."""
    cri, host = plain.cri, plain.host
    for name in ("one", "two"):
        cri.run(Pod(name))
    plain.containerd.lose_everything()
    host.run("sh", "-c", "umount -n /run/netns/cni-* && rm /run/netns/cni-*")
    assert len(host.allocated("containers")) == 4
    kept = host.files("/var/lib/cni/networks/containers")
    plain.containerd.restart()
    plain.containerd.import_image(image, namespace=CRI_NAMESPACE)
    assert cri.sandboxes() == {}
    alive = cri.run(Pod("alive"))
    assert set(kept) < set(host.files("/var/lib/cni/networks/containers"))
    host.run(CNI_PY, "gc", "containers")
    assert sorted(host.allocated("containers")) == sorted(cri.addresses(alive))
    # libcni's own files: a runtime that calls GC removes them with it, containerd does not.
    vanished = [name for name in host.files("/var/lib/cni/results") if alive not in name]
    assert len(vanished) == 4
    host.run("rm", *vanished)
    plain.take_down(alive)


@pytest.mark.slow
def test_many_pods_at_once(plain: Node) -> None:
    """Each has an address of its own, though the server is ended and another started meanwhile."""
    cri, host = plain.cri, plain.host
    server = host.serve()
    with ThreadPoolExecutor() as pool:
        pods = [Pod(f"pod{index}") for index in range(PODS)]
        starting = pool.submit(cri.run_together, pods)
        server.wait_for(lambda line: line["event"] == "call")
        host.serve()
        started = starting.result()
    assert [one.error for one in started if one.error] == []
    addresses = [address for one in started for address in cri.addresses(one.answer)]
    assert len(set(addresses)) == 2 * PODS
    assert len(host.ports()) == PODS
    stopped = cri.take_down_together(one.answer for one in started)
    assert [one.error for one in stopped if one.error] == []
    plain.nothing_is_left()


@pytest.mark.warm
def test_newest_containerd_asks_for_status(newest: Node) -> None:
    """NetworkReady is what STATUS says, with our reason; meanwhile pods can be stopped."""
    cri, host = newest.cri, newest.host
    assert cri.network().holds
    pod = cri.run(Pod("web", ports=()))
    cri.start(pod, *SERVER)
    assert page(host, cri.addresses(pod)[0]) == PAGE
    host.run("sysctl", "-w", "net.ipv4.ip_forward=0")
    condition = cri.network()
    assert not condition.holds
    assert "IPv4 is not forwarded" in condition.message
    newest.take_down(pod)
    host.run("sysctl", "-w", "net.ipv4.ip_forward=1")
    assert cri.network().holds, cri.network()
    newest.configure("10-pods.conflist", small_pool(NEWEST))
    last = cri.run(Pod("last"))
    until(lambda: not cri.network().holds, cri.network)
    assert "10.85.0.2" in cri.network().message
    newest.take_down(last)
    assert cri.network().holds, cri.network()
