"""podman in a test's host: its storage, state and configuration lie in the host's own /run.

    podman = Podman(host, image)
    podman.run("web", "httpd", "-f", "-h", "/www", network="published", publish=["8080:80"])
    podman.exec("web", "ip", "address")
    podman.remove("web")

It uses its CNI backend with the host's /etc/cni/net.d and our executables. crun starts containers,
without cgroups: a host with a sysfs of its own has no cgroup tree for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixtures.host import BIN

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fixtures.calls import Outcome
    from fixtures.host import Host

IMAGE = "docker.io/library/cni-py-test:latest"
_FILES = {
    "containers.conf": f"""\
[containers]
apparmor_profile = "unconfined"
cgroups = "disabled"
# The defaults are more than a process without CAP_SYS_RESOURCE may ask for.
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "crun"
static_dir = "/run/podman/static"
tmp_dir = "/run/podman/tmp"
volume_path = "/run/podman/volumes"
[network]
cni_plugin_dirs = ["{BIN}"]
network_backend = "cni"
network_config_dir = "/etc/cni/net.d"
""",
    "storage.conf": """\
[storage]
driver = "vfs"
graphroot = "/run/podman/storage"
runroot = "/run/podman/containers"
""",
    "policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
}
_ENVIRONMENT = {
    "CONTAINERS_CONF": "/run/podman/containers.conf",
    "CONTAINERS_STORAGE_CONF": "/run/podman/storage.conf",
    "HOME": "/run/podman",
}


class Podman:
    """podman with the test's image."""

    def __init__(self, host: Host, image: Path) -> None:
        self._host = host
        host.run("mkdir", "-p", "/run/podman")
        host.run("mount", "-t", "tmpfs", "none", "/sys/fs/cgroup")
        for name, text in _FILES.items():
            host.run("sh", "-c", f"cat > /run/podman/{name}", stdin=text)
        self("load", "-q", "-i", str(image), "--signature-policy", "/run/podman/policy.json")

    def __call__(self, *arguments: str) -> str:
        """Run podman; returns what it prints."""
        return self._host.run("podman", *arguments, env=_ENVIRONMENT).stdout

    def run(self, name: str, *command: str, network: str, publish: Sequence[str] = ()) -> None:
        """Start a container in the background."""
        done = self.attempt(name, *command, network=network, publish=publish)
        assert done.status == 0, done

    def attempt(
        self, name: str, *command: str, network: str, publish: Sequence[str] = ()
    ) -> Outcome:
        """The same where it may fail."""
        ports = [f"--publish={one}" for one in publish]
        start = ("podman", "run", "--detach", "--name", name, "--network", network, *ports)
        return self._host.run(*start, IMAGE, *command, check=False, env=_ENVIRONMENT)

    def exec(self, name: str, *command: str) -> str:
        """Run a command in a container; returns what it prints."""
        return self("exec", name, *command)

    def address(self, name: str, network: str) -> str:
        """The container's IPv4 address in the network."""
        form = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        return self("inspect", "--format", form, name).strip()

    def remove(self, name: str) -> None:
        """Kill and remove a container, and with it its network."""
        self("rm", "--force", "--time", "0", name)
