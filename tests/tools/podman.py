"""podman in a test's host: its storage, state and configuration lie in the host's own /run.

    podman = Podman(host, image)
    podman.run("web", "httpd", "-f", "-h", "/www", network="published", publish=["8080:80"])
    podman.exec("web", "ip", "address")
    podman.remove("web")

It uses its CNI backend with the host's /etc/cni/net.d and our executables. crun starts containers,
without cgroups: a host with a sysfs of its own has no cgroup tree for them.

`RootlessPodman` is the same of a user without rights, whose networks are in ~/.config/cni/net.d.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.host import BIN, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fixtures.calls import Outcome
    from fixtures.host import Host

IMAGE = "docker.io/library/cni-py-test:latest"
_CONTAINERS_CONF = """\
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
{engine}
[network]
cni_plugin_dirs = ["{plugins}"]
network_backend = "cni"
{network}
"""
_OF_ROOT = """\
static_dir = "/run/podman/static"
tmp_dir = "/run/podman/tmp"
volume_path = "/run/podman/volumes"
"""
_STORAGE_CONF = """\
[storage]
driver = "vfs"
graphroot = "{home}/storage"
runroot = "{home}/containers"
"""
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}\n'

# A user with a range of further ids, as `useradd` gives one, and what podman asks of the machine.
# Python may lie where only root finds it: KEPT gets a way for everyone.
_USER = """\
set -e
user=$1 id=$2 home=$3; shift 3
mkdir -p "$home" /run/kept
for name in passwd group; do cp "/etc/$name" "/run/kept/$name"; done
echo "$user:x:$id:$id::$home:/bin/sh" >> /run/kept/passwd
echo "$user:x:$id:" >> /run/kept/group
for name in subuid subgid; do echo "$user:100000:65536" > "/run/kept/$name"; done
for name in passwd group subuid subgid; do mount --bind "/run/kept/$name" "/etc/$name"; done
mknod -m 666 /run/kept/tun c 10 200
mount --bind /run/kept/tun /dev/net/tun
number=0
for kept; do
  number=$((number + 1))
  mkdir -p "/run/kept/$number"
  mount --bind "$kept" "/run/kept/$number"
done
number=0
for kept; do
  number=$((number + 1)) closed= above=$kept
  while [ "$above" != / ]; do
    above=$(dirname "$above")
    case $(stat -c %a "$above") in *[1357]) ;; *) closed=$above ;; esac
  done
  [ -z "$closed" ] || mount -t tmpfs -o mode=755 none "$closed"
  if [ ! -d "$kept" ]; then
    mkdir -p "$kept"
    mount --bind "/run/kept/$number" "$kept"
  fi
done
"""


class Podman:
    """podman with the test's image."""

    home = "/run/podman"

    def __init__(self, host: Host, image: Path, plugins: str = str(BIN)) -> None:
        self._host = host
        self._environment = {
            "CONTAINERS_CONF": f"{self.home}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self.home}/storage.conf",
            "HOME": self.home,
        }
        network = 'network_config_dir = "/etc/cni/net.d"'
        settings = _CONTAINERS_CONF.format(engine=_OF_ROOT, network=network, plugins=plugins)
        self._write({"containers.conf": settings})
        self._load(image)

    def _write(self, files: dict[str, str]) -> None:
        files |= {"storage.conf": _STORAGE_CONF.format(home=self.home), "policy.json": _POLICY}
        self._host.run("mkdir", "-p", self.home)
        self._host.run("mount", "-t", "tmpfs", "none", "/sys/fs/cgroup")
        for name, text in files.items():
            self._host.run("sh", "-c", f"cat > {self.home}/{name}", stdin=text)

    def _load(self, image: Path) -> None:
        archive = f"{self.home}/image.tar"
        self._host.run("cp", str(image), archive)
        self._host.run("chmod", "644", archive)
        self("load", "-q", "-i", archive, "--signature-policy", f"{self.home}/policy.json")

    def _run(self, *command: str, check: bool = True) -> Outcome:
        return self._host.run(*command, check=check, env=self._environment)

    def __call__(self, *arguments: str) -> str:
        """Run podman; returns what it prints."""
        return self._run("podman", *arguments).stdout

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
        return self._run(*start, IMAGE, *command, check=False)

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


class RootlessPodman(Podman):
    """podman of a user who is not root. `close` ends what it keeps running without containers.

    podman runs the plugins as root of the user's own namespace, in a network namespace between the
    host's and the containers', with a /run and /var/lib/cni for these alone.
    """

    def __init__(self, host: Host, image: Path) -> None:
        self._host = host
        # Nobody else's, so that what runs under it is ours to end.
        self.user = 20000 + os.getpid() % 30000
        self.home = f"/run/user/{self.user}"
        self._environment = {
            "CONTAINERS_CONF": f"{self.home}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self.home}/storage.conf",
            "HOME": self.home,
            "XDG_RUNTIME_DIR": self.home,
            "CNI_PATH": str(BIN),
        }
        own = ("tester", str(self.user), self.home)
        host.run("sh", "-c", _USER, "sh", *own, sys.base_prefix, str(ROOT))
        settings = _CONTAINERS_CONF.format(engine="", network="", plugins=BIN)
        self._write({"containers.conf": settings})
        host.run("chown", "-R", f"{self.user}:{self.user}", self.home)
        host.run("chmod", "700", self.home)
        self._load(image)

    def _run(self, *command: str, check: bool = True) -> Outcome:
        return super()._run(*self._as_user(), *command, check=check)

    def _as_user(self) -> tuple[str, ...]:
        ids = (f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups")
        return ("setpriv", *ids, "--")

    def between(self, *command: str, check: bool = True) -> Outcome:
        """Run a command where podman runs the plugins."""
        return self._run("podman", "unshare", "--rootless-netns", *command, check=check)

    def command_between(self, *command: str) -> list[str]:
        """The whole command line of that, from outside the host."""
        settings = [f"{key}={value}" for key, value in self._environment.items()]
        podman = ("podman", "unshare", "--rootless-netns")
        return [*self._host.prefix, "env", *settings, *self._as_user(), *podman, *command]

    def close(self) -> None:
        """End the user's processes."""
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> Iterator[int]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if entry.stat().st_uid == self.user:
                        yield int(entry.name)
