"""The hosts that are measured on, and calls as a runtime makes them.

The program gets a network and a mount namespace of its own, and nothing of the machine changes.
Ours and the reference each have a host, so that what one leaves there does not slow the other.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "bin"

_INSIDE = "CNI_PY_BENCH_INSIDE"
_OWN_NETNS = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
_PIPE_BYTES = 65536
_QUIET_SECONDS = 0.05
_IDLE = 0.95
_TICK = os.sysconf("SC_CLK_TCK")

_libc = ctypes.CDLL(None, use_errno=True)

Config = dict[str, Any]


def enter() -> None:
    """Execute the program again in namespaces of its own, with state folders of its own."""
    if os.geteuid() != 0:
        sys.exit("bench: network namespaces need root")
    if _INSIDE not in os.environ:
        command = ["unshare", "--net", "--mount", "--propagation", "private", sys.executable]
        os.execvpe(command[0], [*command, *sys.argv], {**os.environ, _INSIDE: "1"})
    for folder in ("/run", "/var/lib/cni"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-n", "-t", "tmpfs", "none", folder], check=True)
    Path("/run/netns").mkdir()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def settle(seconds: float = _QUIET_SECONDS) -> None:
    """Let end what runs in the background: forks ahead, the kernel's deferred work."""
    time.sleep(seconds)


def wait_until_quiet(seconds: float) -> bool:
    """Wait until the machine is idle for two seconds; False if it is not in `seconds`.

    The kernel takes namespaces down for a long time after their last process, and holds locks that
    calls need meanwhile: a worker thread of its work queues is then named `+netns`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = _idle_ticks()
        settle(2)
        idle = (_idle_ticks() - before) / (2 * _TICK * (os.cpu_count() or 1))
        if idle > _IDLE and not any(_takes_namespaces_down()):
            return True
    return False


def _idle_ticks() -> int:
    return int(Path("/proc/stat").read_text().split(maxsplit=5)[4])


def _takes_namespaces_down() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = path.read_text()
        except OSError:
            continue
        if "+netns" in name:
            yield name


def add_netns(name: str) -> str:
    """A network namespace at /run/netns/<name>; returns the name."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    return name


def add_host(name: str) -> int:
    """Another host's network namespace, as a file descriptor."""
    add_netns(name)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    return os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)


class Sandboxes:
    """Container namespaces, given out in turn.

    None is taken away before the end: the kernel does that in the background for seconds.
    """

    def __init__(self, count: int) -> None:
        self.names = [add_netns(f"sandbox{index}") for index in range(count)]
        self._next = 0

    def take(self) -> str:
        """The one that was not used for longest."""
        self._next += 1
        return self.names[self._next % len(self.names)]


@dataclass
class Call:
    """One call of a plugin; the pipes are there before it starts."""

    path: str
    environ: dict[str, str]
    config: Config
    pid: int = 0
    _fds: list[int] = field(default_factory=list)
    _output: int = -1

    def prepare(self) -> None:
        """Make the pipes, and write the configuration."""
        stdin, writer = os.pipe2(os.O_CLOEXEC)
        os.write(writer, json.dumps(self.config).encode())
        os.close(writer)
        self._output, stdout = os.pipe2(os.O_CLOEXEC)
        self._fds = [stdin, stdout]

    def start(self) -> None:
        """Start the process."""
        stdin, stdout = self._fds
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
        self.pid = os.posix_spawn(self.path, [self.path], self.environ, file_actions=actions)
        os.close(stdin)
        os.close(stdout)

    def finish(self) -> tuple[int, bytes]:
        """Read the output to its end and wait for the process: exit status and output."""
        output = b"".join(iter(lambda: os.read(self._output, _PIPE_BYTES), b""))
        _, status = os.waitpid(self.pid, 0)
        os.close(self._output)
        return os.waitstatus_to_exitcode(status), output

    def require(self, status: int, output: bytes) -> None:
        """End the run if the call has failed."""
        if status != 0:
            verb = self.environ["CNI_COMMAND"]
            sys.exit(f"bench: {self.path} {verb} failed ({status}): {output.decode()}")


@dataclass(frozen=True)
class Suite:
    """A set of executables on a host: ours with or without the server, or the reference's."""

    name: str
    folder: Path
    netns: int
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def networks(self) -> Path:
        """Where host-local keeps its files: each suite has its own, as on a host of its own."""
        return Path("/var/lib/cni/networks", self.name)

    def prepare(
        self, plugin: str, verb: str, config: Config, container: str, netns: str, ifname: str
    ) -> Call:
        """A call that is ready to start; this process is on the suite's host afterwards."""
        if _libc.setns(self.netns, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        environ = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_PATH": str(self.folder),
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{netns}",
            "CNI_IFNAME": ifname,
            **dict(self.extra),
        }
        if "ipam" in config:
            config = config | {"ipam": {**config["ipam"], "dataDir": str(self.networks)}}
        call = Call(str(self.folder / plugin), environ, config)
        call.prepare()
        return call

    def call(
        self,
        plugin: str,
        verb: str,
        config: Config,
        container: str,
        netns: str,
        ifname: str = "eth0",
    ) -> float:
        """Wall milliseconds of one call, from its start to the end of output and process."""
        return self.answered(plugin, verb, config, container, netns, ifname)[0]

    def answered(
        self,
        plugin: str,
        verb: str,
        config: Config,
        container: str,
        netns: str,
        ifname: str = "eth0",
    ) -> tuple[float, bytes]:
        """The same, and what the call has put out."""
        call = self.prepare(plugin, verb, config, container, netns, ifname)
        start = time.perf_counter()
        call.start()
        ended = call.finish()
        elapsed = (time.perf_counter() - start) * 1000
        call.require(*ended)
        return elapsed, ended[1]

    def all_at_once(self, verb: str, config: Config, containers: list[str]) -> float:
        """Wall milliseconds of bridge calls that start together, until the last has ended.

        Each container's namespace has its name.
        """
        calls = [self.prepare("bridge", verb, config, one, one, "eth0") for one in containers]
        start = time.perf_counter()
        for call in calls:
            call.start()
        ended = [call.finish() for call in calls]
        elapsed = (time.perf_counter() - start) * 1000
        for call, one in zip(calls, ended, strict=True):
            call.require(*one)
        return elapsed


def own_netns() -> int:
    """The network namespace of this process, as a file descriptor."""
    return os.open(_OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)


def bridge(name: str, second: int, **keys: Any) -> Config:
    """A bridge network of its own, 10.<second>.0.0/16."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": f"10.{second}.0.0/16"}]]}
    config = {
        "cniVersion": "1.0.0",
        "name": name,
        "type": "bridge",
        "bridge": f"br-{name}",
        "isDefaultGateway": True,
        "ipam": ipam,
    }
    return config | keys
