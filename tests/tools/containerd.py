"""containerd in a test's host: a daemon of its own in the host's namespaces, driven through ctr.

    prefix = ["nsenter", "--target", pid, "--net", "--mount", "--"]
    folders = {"scratch": tmp_path, "bin_dir": bin_dir, "conf_dir": conf_dir}
    with Containerd(prefix, **folders, image=image) as containerd:
        containerd.run("web", "httpd", "-f", "-h", "/www")
        containerd.exec("web", "ip", "address")
        containerd.remove("web")

`PYTHONPATH=tests python -m tools.containerd --self-test` shows, in namespaces of
its own and with Debian's reference plugins, that all of this works here.

What the host needs, and `start` provides where the host does not have it yet. Every mount is made
inside the host's mount namespace:

- `/etc/cni/net.d` and `/opt/cni/bin` are compiled into ctr: they become bind mounts of the given
  folders.
- `/run/containerd` is compiled into the shims (sockets, FIFOs, runc's state), whatever the
  daemon's configuration says.
- `/var/lib/cni` is where libcni caches results and host-local keeps its allocations.
- `/usr/lib/cni`, unless given, is hidden: Debian's ctr looks there for what it does not find in
  /opt/cni/bin, so the reference plugin would answer for one that is missing. Copy what a test
  needs of those; a link to them leads nowhere.
- `/sys/fs/cgroup` becomes an empty tmpfs, and containers run under crun with cgroups disabled.
  runc has no such switch, and a host with a sysfs of its own has no cgroup tree for it; given the
  machine's tree, it would leave cgroups there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tools import containerd_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

IMAGE = "docker.io/library/cni-py-test:latest"
NAMESPACE = "default"
CRI_NAMESPACE = "k8s.io"
SNAPSHOTTER = "native"
PACKAGES = {"containerd": "containerd", "ctr": "containerd", "crun": "crun"}
SOCKET_PATH_MAX = 107
"""Bytes of a unix socket's path (unix(7)): sun_path without its closing zero."""

RUNTIME = """\
#!/bin/sh
# crun finds "all" processes by their cgroup: without one, "kill --all" succeeds and kills nothing.
# The first process takes the others of its pid namespace with it.
# It also knows OCI versions up to 1.0 alone; what later ones have added is not used here.
before=
for word; do
  shift
  [ "$word" = --all ] || set -- "$@" "$word"
  if [ "$before" = --bundle ]; then
    sed -i 's/"ociVersion":"1[.][1-9][^"]*"/"ociVersion":"1.0.2"/' "$word/config.json"
  fi
  before=$word
done
exec crun --cgroup-manager=disabled "$@"
"""

PREPARE = """\
set -eu
layers=$1 bin_dir=$2 conf_dir=$3 caller=/proc/$4

# What the caller sees is the machine's (process 1 may be out of our sight). Whatever cannot be
# told apart from it is refused: a mistake here would write to the machine.
machine=$caller/root
[ -d "$machine/etc" ] || { echo "the host does not see the caller's $caller" >&2; exit 1; }
for kind in net mnt; do
  theirs=$(readlink "$caller/ns/$kind")
  ours=$(readlink "/proc/self/ns/$kind")
  if [ "$theirs" = "$ours" ]; then
    echo "the prefix stays in the caller's own $kind namespace" >&2
    exit 1
  fi
done

# -n: else mount makes /run/mount, and /run may still be the machine's.
mkdir -p "$layers"
mount -n -t tmpfs tmpfs "$layers"

# Makes a folder the host's own, unless it already is another than the machine's.
own() {
  there=$1
  while [ ! -e "${there:-/}" ]; do there=${there%/*}; done
  if [ ! "$there" -ef "$machine$there" ]; then
    mkdir -p "$1"
  elif [ "$there" = "$1" ]; then
    mount -n -t tmpfs tmpfs "$1"
  else
    mkdir -p "$layers$there/upper" "$layers$there/work"
    options=lowerdir=$there,upperdir=$layers$there/upper,workdir=$layers$there/work
    mount -n -t overlay -o "$options" overlay "$there"
    mkdir -p "$1"
  fi
  [ ! "$1" -ef "$machine$1" ] || { echo "$1 is still the machine's" >&2; exit 1; }
}

for folder in /etc/cni/net.d /opt/cni/bin /run/containerd /var/lib/cni; do own "$folder"; done
[ "$bin_dir" -ef /opt/cni/bin ] || mount -n --bind "$bin_dir" /opt/cni/bin
[ "$conf_dir" -ef /etc/cni/net.d ] || mount -n --bind "$conf_dir" /etc/cni/net.d
for hidden in /usr/lib/cni /sys/fs/cgroup; do
  if [ -d "$hidden" ] && [ "$hidden" != "$bin_dir" ]; then mount -n -t tmpfs tmpfs "$hidden"; fi
done
"""


class ContainerdError(Exception):
    """Something did not work; the text says what, with the output of the command that failed."""


class Containerd:
    """One containerd, with its own root, state, socket and containers.

    prefix: the command line in front of each command that is to run in the host. It has to exec
        the command rather than wait for it (nsenter does).
    scratch: a folder on disk, of this instance alone, not below /etc, /opt, /run or /var/lib. Its
        path is short enough for a socket in it; processes outside the host reach the socket too.
    bin_dir, conf_dir: what the host's /opt/cni/bin and /etc/cni/net.d shall be. The CRI wants a
        plugin `loopback` there too.
    image: an archive as make-image writes it.
    timeout: seconds that any one step may take.
    programs: a folder with containerd, ctr and the shim of another version than the installed one.

    How a container's network is removed (read in ctr 1.6.20, and seen). ctr itself is the CNI
    runtime; the daemon knows nothing of it:

    - `ctr run --cni` in the foreground calls DEL when its container has ended, with the container
      id "default-ID", the cached result, and an empty CNI_NETNS. A DEL that fails is only a line
      "network review" on its stderr. This is how `run` starts containers, each with a ctr that
      stays in the background, and `remove` raises what that line says. The namespace is dying by
      then: a link that the plugin leaves to the kernel may outlive `remove` for a moment.
    - `ctr run --cni --detach` calls ADD and leaves; nobody calls DEL, neither on the task's end
      nor at `ctr task rm` or `ctr container rm`: interface and addresses are lost with the
      namespace or not at all. `run(..., detached=True)` does this, for tests of GC. (host-local
      then refuses the same id a second time.)
    - An ADD that fails in the foreground is followed by a DEL at once; detached it is not. Either
      way ctr leaves the created task behind; `run` deletes it.
    """

    def __init__(
        self,
        prefix: Sequence[str],
        *,
        scratch: Path,
        bin_dir: Path,
        conf_dir: Path,
        image: Path,
        timeout: float = 30,
        programs: Path | None = None,
    ) -> None:
        self.prefix = tuple(prefix)
        self.scratch = scratch.absolute()
        self.bin_dir = bin_dir.absolute()
        self.conf_dir = conf_dir.absolute()
        self.image = image.absolute()
        self.timeout = timeout
        self.address = self.scratch / "containerd.sock"
        self.log = self.scratch / "containerd.log"
        self._runtime = self.scratch / "crun-without-cgroups"
        self._output = self.scratch / "output"
        self._temporary = self.scratch / "tmp"
        path = os.environ.get("PATH", os.defpath)
        # The daemon looks for its shim there too.
        self._environ = {**os.environ, "PATH": f"{programs}:{path}" if programs else path}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._attached: dict[str, subprocess.Popen[bytes]] = {}
        self._detached: set[str] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Prepares the host, starts the daemon, waits until it answers, imports the image."""
        missing = {package for name, package in PACKAGES.items() if not shutil.which(name)}
        if missing:
            raise ContainerdError(f"missing here: apt-get install {' '.join(sorted(missing))}")
        longest = f"{self.address}.ttrpc"
        if len(os.fsencode(longest)) > SOCKET_PATH_MAX:
            raise ContainerdError(f"too long for a socket: {longest}")
        self._write_files()
        folders = (self.scratch / "layers", self.bin_dir, self.conf_dir)
        self._host("bash", "-c", PREPARE, "prepare", *folders, str(os.getpid()))
        try:
            self._start_daemon()
            self.import_image(self.image)
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """Ends the daemon as an upgrade does and starts it again; shims and containers go on."""
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(self.timeout)
        self._start_daemon()

    @property
    def running(self) -> bool:
        """Whether the daemon is there."""
        return self._daemon is not None and self._daemon.poll() is None

    @property
    def version(self) -> tuple[int, int]:
        """The daemon's version, its first two numbers."""
        said = self._host("containerd", "--version")
        found = re.search(r" v?(\d+)\.(\d+)\.", said)
        if found is None:
            raise ContainerdError(f"containerd of an unknown version: {said}")
        return int(found[1]), int(found[2])

    def import_image(self, image: Path, *, namespace: str = NAMESPACE) -> None:
        """Imports an archive. The CRI looks for images in its own namespace, CRI_NAMESPACE."""
        arguments = ("images", "import", "--snapshotter", SNAPSHOTTER, image)
        self.ctr(*arguments, namespace=namespace)

    def run(
        self,
        container_id: str,
        *command: str,
        cni: bool = True,
        detached: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        """Starts a container (without a command it sleeps) and returns when it runs or has ended.

        options: further options of ctr run. detached: see the class. Raises when the container
        cannot be started, CNI ADD included; it is gone then.
        """
        if container_id in self._attached or container_id in self._detached:
            raise ContainerdError(f"{container_id}: there is such a container, remove it first")
        arguments = ["run", "--runc-binary", str(self._runtime), "--snapshotter", SNAPSHOTTER]
        arguments += ["--cni"] if cni else []
        arguments += ["--detach"] if detached else ["--rm"]
        # Through ctr's own pipes the output of a short command may get lost.
        output = self._output_file(container_id)
        output.unlink(missing_ok=True)
        arguments += ["--log-uri", output.as_uri()]
        arguments += [*options, IMAGE, container_id, *command]
        if not detached:
            self._run_attached(container_id, arguments)
            return
        try:
            self.ctr(*arguments)
        except ContainerdError:
            with contextlib.suppress(ContainerdError):
                self._discard(container_id)
            raise
        self._detached.add(container_id)

    def exec(self, container_id: str, *command: str) -> str:
        """Runs a command in a container; returns its stdout, raises when it fails.

        By crun itself: `ctr task exec` on a busy machine may lose all output of a short command,
        since it closes its end when the command has ended, opened by then or not.
        """
        crun = ("crun", "--cgroup-manager=disabled", "--root", f"/run/containerd/runc/{NAMESPACE}")
        return self._host(*crun, "exec", container_id, *command)

    def output(self, container_id: str) -> str:
        """What a container has written so far, for a failure's text: use `exec` to judge by.

        The shim copies stdout and stderr each for itself, so their order is lost, and on a busy
        machine sometimes the last words.
        """
        file = self._output_file(container_id)
        return file.read_text(errors="replace") if file.exists() else ""

    def pid(self, container_id: str) -> int:
        """The process id of a running container's first process, as the machine counts."""
        try:
            return self._tasks()[container_id][0]
        except KeyError:
            raise ContainerdError(f"{container_id}: no such task") from None

    def netns(self, container_id: str) -> str:
        """The path of a running container's network namespace; the same as ctr passes to CNI."""
        return f"/proc/{self.pid(container_id)}/ns/net"

    def remove(self, container_id: str) -> None:
        """Kills a container, waits for its end, deletes task, container and (attached) network.

        Raises when the network's removal failed; the container is gone nevertheless.
        """
        process = self._attached.get(container_id)
        if process is None:
            self._discard(container_id)
            self._detached.discard(container_id)
            return
        if process.poll() is None:
            # It may end by itself in between; then there is no task to be killed.
            with contextlib.suppress(ContainerdError):
                self.ctr("task", "kill", "--signal", "SIGKILL", container_id)
        try:
            process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            raise ContainerdError(f"{container_id}: ctr run goes on after SIGKILL") from None
        del self._attached[container_id]
        said = self._ctr_file(container_id).read_text(errors="replace")
        failures = [line for line in said.splitlines() if "network review" in line]
        if failures:
            raise ContainerdError(f"{container_id}: CNI DEL failed: {' '.join(failures)}")

    def kill(self) -> None:
        """Ends the daemon as a crash would: shims and containers go on. `start` and `stop` work."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait(self.timeout)
            self._daemon = None

    def lose_everything(self) -> None:
        """Ends daemon, shims and containers and forgets them, as on a node that is set up anew."""
        self.kill()
        self._kill_leftovers()
        for name in ("root", "state"):
            # What the host has mounted there goes with the folders: mount_namespaces(7).
            shutil.rmtree(self.scratch / name)

    def stop(self) -> None:
        """Removes all containers, ends the daemon, and kills whatever is left of it.

        Raises after that what failed on the way.
        """
        errors = list(self._stop_daemon())
        self.kill()
        self._kill_leftovers()
        self._attached.clear()
        self._detached.clear()
        if errors:
            raise ContainerdError("\n".join(map(str, errors)))

    def _stop_daemon(self) -> Iterator[ContainerdError]:
        """Ends the daemon in order, if it runs, and yields what fails."""
        if self._daemon is None:
            return
        if self._daemon.poll() is None:
            yield from self._remove_all()
            self._daemon.terminate()
            try:
                self._daemon.wait(self.timeout)
            except subprocess.TimeoutExpired:
                yield ContainerdError(f"containerd ignores SIGTERM\n{self._log_tail()}")
        else:
            yield ContainerdError(f"containerd had ended by itself\n{self._log_tail()}")

    def _kill_leftovers(self) -> None:
        """Kills shims, containers and each ctr, and waits until they have ended."""
        for pid in (leftovers := self._leftovers()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._attached.values():
            process.wait(self.timeout)
        wait_until(lambda: not any(map(is_alive, leftovers)), self.timeout, "leftovers to end")

    def ctr(self, *arguments: str | Path, namespace: str = NAMESPACE) -> str:
        """Any ctr command; returns its stdout, raises when it fails."""
        return self._host("ctr", "--address", self.address, "--namespace", namespace, *arguments)

    def _host(self, *command: str | Path) -> str:
        """Runs a command in the host."""
        words = [str(word) for word in command]
        try:
            done = subprocess.run(
                [*self.prefix, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.timeout,
                check=False,
                env=self._environ,
            )
        except subprocess.TimeoutExpired:
            problem = f"not done within {self.timeout:g} s"
            raise ContainerdError(f"{' '.join(words)}: {problem}\n{self._log_tail()}") from None
        stdout = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            said = stdout + done.stderr.decode(errors="replace")
            # The text of a script tells nothing.
            name = "preparing the host" if words[0] == "bash" else " ".join(words)
            raise ContainerdError(f"{name}: exit status {done.returncode}\n{said}")
        return stdout

    def _write_files(self) -> None:
        for folder in (self._output, self._temporary):
            folder.mkdir(parents=True, exist_ok=True)
        values = {
            "root": self.scratch / "root",
            "state": self.scratch / "state",
            "address": self.address,
            "image": IMAGE,
            "snapshotter": SNAPSHOTTER,
            "runtime": self._runtime,
        }
        text = containerd_config.text(self.version, values)
        (self.scratch / "config.toml").write_text(text)
        self._runtime.write_text(RUNTIME)
        self._runtime.chmod(0o755)

    def _start_daemon(self) -> None:
        self._daemon = self._spawn(
            ["containerd", "--config", str(self.scratch / "config.toml")], self.log
        )
        wait_until(self._accepts, self.timeout, "containerd's socket")
        self.ctr("version")

    def _spawn(self, command: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
        """Starts a command of the host in the background, out of reach of a terminal's signals."""
        with output.open("ab") as file:
            return subprocess.Popen(
                [*self.prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Where containerd mounts a snapshot to unpack a layer into it.
                env=self._environ | {"TMPDIR": str(self._temporary)},
            )

    def _accepts(self) -> bool:
        """Whether the daemon takes connections. (ctr would wait a second between two attempts.)"""
        if self._daemon is None or self._daemon.poll() is not None:
            raise ContainerdError(f"containerd has ended\n{self._log_tail()}")
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.address)) == 0

    def _run_attached(self, container_id: str, arguments: Sequence[str]) -> None:
        ctr = ("ctr", "--address", str(self.address), "--namespace", NAMESPACE)
        file = self._ctr_file(container_id)
        file.unlink(missing_ok=True)
        process = self._spawn([*ctr, *arguments], file)
        self._attached[container_id] = process

        def runs_or_has_ended() -> bool:
            if process.poll() is not None:
                return True
            return self._tasks().get(container_id, (0, ""))[1] == "RUNNING"

        wait_until(runs_or_has_ended, self.timeout, f"container {container_id} to run")
        # A command's own exit status is not ours to judge; ctr tells its errors by its name.
        said = file.read_text(errors="replace")
        if process.poll() and any(line.startswith("ctr: ") for line in said.splitlines()):
            del self._attached[container_id]
            # A task that was created but not started outlives ctr, for all its --rm.
            with contextlib.suppress(ContainerdError):
                self._discard(container_id)
            raise ContainerdError(f"ctr {' '.join(arguments)}: {said}")

    def _tasks(self, namespace: str = NAMESPACE) -> dict[str, tuple[int, str]]:
        """Pid and status by container id."""
        lines = self.ctr("task", "list", namespace=namespace).splitlines()[1:]
        return {name: (int(pid), status) for name, pid, status in map(str.split, lines)}

    def _discard(self, container_id: str, namespace: str = NAMESPACE) -> None:
        """Deletes a container whose ctr has left, running or not."""
        if container_id in self._tasks(namespace):
            self.ctr("task", "delete", "--force", container_id, namespace=namespace)
        self.ctr("container", "delete", container_id, namespace=namespace)

    def _remove_all(self) -> Iterator[ContainerdError]:
        """Removes every container, the CRI's too, and yields what fails."""
        for container_id in list(self._attached):
            try:
                self.remove(container_id)
            except ContainerdError as error:
                yield error
        for namespace in (NAMESPACE, CRI_NAMESPACE):
            try:
                for container_id in self.ctr(
                    "container", "list", "-q", namespace=namespace
                ).split():
                    self._discard(container_id, namespace)
            except ContainerdError as error:
                yield error

    def _leftovers(self) -> set[int]:
        """Processes of this instance (our socket is among their arguments) and those below them."""
        address = os.fsencode(self.address)
        found, children = set[int](), defaultdict[int, list[int]](list)
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    children[parent_pid(entry)].append(int(entry.name))
                    if address in (entry / "cmdline").read_bytes().split(b"\0"):
                        found.add(int(entry.name))
        waiting = list(found)
        while waiting:
            below = children[waiting.pop()]
            found.update(below)
            waiting += below
        return found

    def _output_file(self, container_id: str) -> Path:
        return self._output / f"{container_id}.output"

    def _ctr_file(self, container_id: str) -> Path:
        """What the ctr of an attached container says itself."""
        return self._output / f"{container_id}.ctr"

    def _log_tail(self) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Polls; raises after timeout seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ContainerdError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(0.01)


def parent_pid(process: Path) -> int:
    """From /proc/PID/stat, where the parent comes second after the name in parentheses."""
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def is_alive(pid: int) -> bool:
    """Whether a process is there, and is more than a zombie that its parent has yet to collect."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


PLUGINS = Path("/usr/lib/cni")
TRACES = (
    "/etc/cni/net.d/10-self-test.conflist",
    "/run/containerd/runc/default/*",
    "/var/lib/cni/*/self-test*",
)
CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "self-test",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "br-self-test",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.250.0.0/24"}]]},
        }
    ],
}


@contextlib.contextmanager
def fresh_host() -> Iterator[list[str]]:
    """A host as tests have it, and the prefix that leads there. It ends with this process."""
    script = "ip link set lo up && mount -n -t sysfs sysfs /sys && echo ready && exec cat"
    command = ["unshare", "--net", "--mount", "--", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if pipe(holder.stdout).readline() != b"ready\n":
            raise ContainerdError("a fresh host cannot be made here (it takes root)")
        yield ["nsenter", "--target", str(holder.pid), "--net", "--mount", "--"]
        pipe(holder.stdin).close()


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def read_host(prefix: Sequence[str]) -> dict[str, list[str]]:
    """What CNI has left in a host."""
    script = "ls /var/lib/cni/results /var/lib/cni/networks/self-test; ip -brief link"
    lines = subprocess.run(
        [*prefix, "sh", "-c", script], capture_output=True, text=True, check=True
    )
    words = lines.stdout.split()
    return {
        "results": [word for word in words if word.startswith("self-test-")],
        "addresses": [word for word in words if word.startswith("10.250.0.")],
        "links": [word for word in words if word.startswith("veth")],
    }


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Prints what is done, and the time it took."""
    begin = time.monotonic()
    yield
    print(f"{(time.monotonic() - begin) * 1000:7.0f} ms  {what}", flush=True)


def check(*, holds: bool, what: str) -> None:
    print(f"{'ok' if holds else 'FAILED':>10}  {what}", flush=True)
    if not holds:
        raise ContainerdError(what)


def try_two_containers(containerd: Containerd) -> None:
    addresses = {}
    for name in ("one", "two"):
        with told(f"run {name}"):
            containerd.run(name)
        line = containerd.exec(name, "ip", "-4", "-o", "address", "show", "dev", "eth0")
        addresses[name] = line.split()[3].partition("/")[0]
        check(holds=addresses[name].startswith("10.250.0."), what=f"{name} has {addresses[name]}")
        inode = Path(containerd.netns(name)).stat().st_ino
        inside = containerd.exec(name, "readlink", "/proc/self/ns/net").strip()
        check(
            holds=inside == f"net:[{inode}]", what=f"{name} has {containerd.netns(name)}, {inside}"
        )
    with told("ping from one to two"):
        said = containerd.exec("one", "ping", "-c", "1", "-W", "2", addresses["two"])
    check(holds=" 0% packet loss" in said, what=said.strip().splitlines()[-2])
    left = read_host(containerd.prefix)
    check(holds=all(len(found) == 2 for found in left.values()), what=f"the host has {left}")
    for name in ("one", "two"):
        with told(f"remove {name}"):
            containerd.remove(name)
    left = read_host(containerd.prefix)
    check(holds=not left["results"] + left["addresses"], what=f"after CNI DEL the host has {left}")
    # Called without a namespace, the plugin leaves the link to the kernel, which takes its time.
    with told("the links go"):
        wait_until(lambda: not read_host(containerd.prefix)["links"], 30, "the links to go")


def try_detached_container(containerd: Containerd) -> None:
    with told("run three, detached"):
        containerd.run("three", detached=True)
    with told("remove three"):
        containerd.remove("three")
    left = read_host(containerd.prefix)
    print(f"      note  nobody calls DEL for a detached one: the host has {left}")


def read_machine() -> list[Path]:
    """What a host that is not apart from the machine would leave on the machine."""
    return sorted(path for pattern in TRACES for path in Path("/").glob(pattern[1:]))


def self_test() -> None:
    machine = read_machine()
    check(holds=(PLUGINS / "bridge").exists(), what=f"reference plugins in {PLUGINS}")
    with tempfile.TemporaryDirectory(prefix="cni-py-containerd-") as folder, fresh_host() as prefix:
        scratch = Path(folder)
        image, conf_dir = scratch / "image.tar", scratch / "net.d"
        conf_dir.mkdir()
        (conf_dir / "10-self-test.conflist").write_text(json.dumps(CONFLIST))
        with told("make the image"):
            subprocess.run([Path(__file__).with_name("make-image"), image], check=True)
        containerd = Containerd(
            prefix, scratch=scratch / "c", bin_dir=PLUGINS, conf_dir=conf_dir, image=image
        )
        try:
            with told("prepare the host, start containerd, import the image"):
                containerd.start()
            try_two_containers(containerd)
            try_detached_container(containerd)
        finally:
            with told("stop"):
                containerd.stop()
        check(holds=not containerd._leftovers(), what="no process is left")
    mounts = Path("/proc/self/mountinfo").read_text()
    check(holds=folder not in mounts and not Path(folder).exists(), what="no mount or file is left")
    check(holds=read_machine() == machine, what="the machine's folders are as before")


def main() -> None:
    parser = argparse.ArgumentParser(description="containerd in a test's host")
    parser.add_argument("--self-test", action="store_true", required=True)
    parser.parse_args()
    # A polite end cleans up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        self_test()
    except ContainerdError as error:
        sys.exit(f"self-test failed: {error}")


if __name__ == "__main__":
    main()
