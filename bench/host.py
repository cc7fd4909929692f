"""The host that is measured on: own namespaces and state folders, calls as a runtime makes them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "bin"
SERVER = ROOT / ".venv" / "bin" / "cni-py"
SOCKET = Path("/run/cni-py/cni.sock")
_INSIDE = "CNI_PY_BENCH_INSIDE"
_TICK = os.sysconf("SC_CLK_TCK")


def enter() -> None:
    """Execute the program again in a network and a mount namespace of its own."""
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


def add_netns(name: str) -> None:
    """A container's network namespace at /run/netns/<name>."""
    subprocess.run(["ip", "netns", "add", name], check=True)


def delete_netns(name: str) -> None:
    """Take it away again."""
    subprocess.run(["ip", "netns", "delete", name], check=True)


@dataclass(frozen=True)
class Suite:
    """A set of executables: ours with or without the server, or the reference's."""

    name: str
    folder: Path
    socket: str = ""

    def environ(self, verb: str, container: str, netns: str, ifname: str) -> dict[str, str]:
        """What the runtime sets."""
        return {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_PATH": str(self.folder),
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{netns}",
            "CNI_IFNAME": ifname,
            "CNI_PY_SOCKET": self.socket,
        }

    def start(
        self,
        plugin: str,
        verb: str,
        config: dict[str, Any],
        container: str,
        netns: str = "",
        ifname: str = "eth0",
    ) -> int:
        """Start a call; its process id. The output goes to /run/output.<container>."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.write(writer, json.dumps(config).encode())
        os.close(writer)
        output = f"/run/output.{container}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_DUP2, reader, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, flags, 0o600),
        ]
        path = str(self.folder / plugin)
        environ = self.environ(verb, container, netns or container, ifname)
        try:
            return os.posix_spawn(path, [path], environ, file_actions=actions)
        finally:
            os.close(reader)

    def call(self, plugin: str, verb: str, *arguments: Any, **keywords: Any) -> float:
        """Wall milliseconds of one call; ends the run if it fails."""
        start = time.perf_counter()
        pid = self.start(plugin, verb, *arguments, **keywords)
        _, status = os.waitpid(pid, 0)
        elapsed = (time.perf_counter() - start) * 1000
        require(status, self, plugin, verb, str(arguments[1]))
        return elapsed


def require(status: int, suite: Suite, plugin: str, verb: str, container: str) -> None:
    """End the run if a call has failed."""
    if status != 0:
        output = Path(f"/run/output.{container}").read_text()
        sys.exit(f"bench: {verb} by {suite.name}'s {plugin} failed: {output}")


class Server:
    """`cni-py serve`, and what it and its children have used."""

    def __init__(self) -> None:
        self.log = Path("/run/server.log")
        with self.log.open("w") as log:
            self._process = subprocess.Popen([SERVER, "serve"], stderr=log)
        deadline = time.monotonic() + 20
        while '"listening"' not in self.log.read_text():
            if time.monotonic() > deadline:
                sys.exit("bench: the server does not listen")
        settle()

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def cpu_seconds(self) -> float:
        """User and system time of the server and of the workers that have ended."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = stat.rsplit(")", 1)[1].split()
        return sum(int(one) for one in fields[11:15]) / _TICK

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(one) for one in path.read_text().split()]

    def memory_kib(self) -> int:
        """Proportional memory of the server and its waiting workers."""
        return sum(memory(pid, ("Pss",)) for pid in (self._process.pid, *self.workers()))

    def steps(self, verb: str) -> list[dict[str, Any]]:
        """The log's lines of a verb."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line.get("verb") == verb and "code" not in line]


def memory(pid: int, kinds: tuple[str, ...]) -> int:
    """KiB of a process, of the given kinds of smaps_rollup; 0 if it has gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = (line.split() for line in text.splitlines())
    return sum(int(one[1]) for one in fields if one[0].rstrip(":") in kinds)


def children_cpu_seconds() -> float:
    """User and system time of the children that have been waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def settle() -> None:
    """Let what runs in the background end: forked workers, the kernel's own deferred work."""
    time.sleep(0.05)
