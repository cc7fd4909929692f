"""The agent's image as containers on two nodes, with the manifest's mounts and capability alone."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from tools.server_image import build, bundle

from fixtures.agents import Cluster
from fixtures.background import Background
from fixtures.manifests import daemon_set, mounts, named, overlaid
from fixtures.underlay import Stream, Underlay, eventually, reaches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fixtures.underlay import Member

pytestmark = [pytest.mark.root, pytest.mark.slow]

CRUN = ("crun", "--cgroup-manager=disabled", "--root", "/run/crun")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two hosts with a container each, and an etcd."""
    with (
        closing(Underlay.start((1, 1))) as underlay,
        closing(Cluster.start(underlay)) as cluster,
    ):
        cluster.containers()
        yield cluster


class Pod:
    """A pod of the DaemonSet on a node."""

    def __init__(self, member: Member, endpoints: str, root: Path, folder: Path) -> None:
        self.host, self.root, self.folder = member.host, root, folder
        # crun looks there all the same, and a host of the tests has no cgroups.
        self.host.run("mount", "-t", "tmpfs", "none", "/sys/fs/cgroup")
        self.count = 0
        objects = overlaid("agent")
        self.pod = daemon_set(objects, "cni-py-agent")["spec"]["template"]["spec"]
        (self.container,) = self.pod["containers"]
        # No certificates here: tests/cluster/test_agent_command.py has them.
        data = named(objects, "ConfigMap", "cni-py-agent")["data"]
        self.environ = {key: value for key, value in data.items() if "FILE" not in key}
        self.environ |= {"FLANNELD_ETCD_ENDPOINTS": endpoints, "NODE_NAME": "node"}
        self.running: Background | None = None

    def start(self) -> None:
        binds = mounts(self.container, self.pod)
        self.host.run("mkdir", "-p", *binds.values())
        self.count += 1
        path = self.folder / str(self.count)
        (self.folder / "etcd").mkdir(parents=True, exist_ok=True)
        arguments = [*self.container["command"][1:], *self.container["args"]]
        binds = {"/etc/cni-py/etcd": str(self.folder / "etcd"), **binds}
        bundle(path, self.root, self.container, arguments, binds, self.environ)
        run = [*self.host.prefix, *CRUN, "run", "--bundle", str(path), f"agent{self.count}"]
        self.running = Background(run)

    def asked(self, probe: str) -> bool:
        """As the kubelet asks."""
        given: dict[str, Any] = self.container[probe]["httpGet"]
        url = f"http://{given['host']}:{given['port']}{given['path']}"
        return self.host.run("busybox", "wget", "-qO-", url, check=False).status == 0

    def stop(self) -> None:
        if self.running is not None:
            self.host.run(*CRUN, "kill", f"agent{self.count}", "TERM", check=False)
            self.running.process.wait(60)
            self.running.stop()
            self.running = None


def test_nodes_are_joined_and_upgraded(cluster: Cluster, tmp_path: Path) -> None:
    root = tmp_path / "root"
    build(root)
    members = cluster.underlay.members
    pods = [
        Pod(member, cluster.etcd.endpoints, root, tmp_path / f"pod{number}")
        for number, member in members.items()
    ]
    try:
        for number, pod in enumerate(pods, 1):
            cluster.wish(number)
            pod.start()
        assert eventually(lambda: all(one.asked("readinessProbe") for one in pods), 60), [
            one.running and (one.running.lines, one.running.noise) for one in pods
        ]
        assert all(one.asked("livenessProbe") for one in pods)
        assert reaches(members[1], members[2])
        keys = cluster.etcd.keys()
        assert len(keys) == 3
        # The next release: its agent starts when this one has ended.
        with Stream(members[1], members[2]) as stream:
            pods[0].stop()
            assert not pods[0].asked("livenessProbe")
            pods[0].start()
            assert eventually(lambda: pods[0].asked("readinessProbe"), 60)
        assert stream.lost == []
        assert cluster.etcd.keys() == keys
        # As the guide removes it.
        pods[0].stop()
        pods[0].environ["CNI_PY_AGENT_RELEASE"] = "true"
        pods[0].start()
        assert eventually(lambda: pods[0].asked("readinessProbe"), 60)
        pods[0].stop()
        assert members[1].host.link("flannel.1") is None
        assert len(cluster.etcd.keys()) == 2
    finally:
        for one in pods:
            one.stop()
        shutil.rmtree(root)
