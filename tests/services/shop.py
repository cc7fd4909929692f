"""Containers with a small HTTP service, and agents that keep it, on one host or several."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cni_py.cluster.sqlite import Sqlite
from cni_py.services.store_registry import StoreRegistry
from fixtures.agents import Agent
from fixtures.configs import host_local
from fixtures.etcd import ENDING_WITH_US
from fixtures.underlay import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cni_py.services.instance import Instance
    from fixtures.host import Container, Host

NETWORK = "shop"
PORT = 8080
CHECK = {"type": "http", "path": "/ping", "intervalSeconds": 0.2, "timeoutSeconds": 0.5, "fall": 2}
WEB = {"name": "web", "port": PORT, "check": CHECK}
FOLDER = "/run/cni-py/services"
SECONDS = 30.0


@dataclass
class Served:
    """A container on the network, and its server, which may be started and ended."""

    host: Host
    container: Container
    result: Any
    chain: list[dict[str, Any]]
    page: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        address: str = self.result["ips"][0]["address"]
        return address.partition("/")[0]

    def start(self) -> None:
        command = ("busybox", "httpd", "-f", "-p", str(PORT), "-h", str(self.page))
        inside = self.container.command(*ENDING_WITH_US, *command)
        self.process = subprocess.Popen(inside, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        """It dies; the container stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def hang(self, *, on: bool) -> None:
        """It accepts connections, for the kernel does so, and answers nothing."""
        assert self.process is not None
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP if on else signal.SIGCONT)

    def _pids(self) -> list[int]:
        assert self.process is not None
        found, new = [self.process.pid], [self.process.pid]
        while new:
            pid = new.pop()
            with suppress(OSError):
                with open(f"/proc/{pid}/task/{pid}/children") as file:
                    children = [int(one) for one in file.read().split()]
                found += children
                new += children
        return found

    def delete(self) -> None:
        """Take the container down."""
        self.stop()
        for one in reversed(self.chain):
            config = one | {"prevResult": self.result}
            assert self.host.call(one["type"], "DEL", config, self.container).status == 0


@dataclass
class Place:
    """A host with an agent that keeps services."""

    host: Host
    folder: Path
    options: tuple[str, ...]
    subnet: str = "10.77.0.0/24"
    dns: bool = False
    """Whether the network has a server for names, and not just what is published for one."""
    agent: Agent | None = None
    served: list[Served] = field(default_factory=list)

    def start(self) -> Place:
        if self.agent is None:
            options = ("--services", "--no-subnet", *self.options)
            self.agent = Agent(self.host, self.folder, f"agent-{id(self)}", options)
        else:
            self.agent.start()
        return self

    def serve(self, name: str, *services: Any, running: bool = True) -> Served:
        """A container whose services are declared; `web` unless others are named."""
        container = self.host.container(name)
        ipam = host_local([{"subnet": self.subnet}])
        bridge = {"type": "bridge", "bridge": "shop0", "isDefaultGateway": True, "ipam": ipam}
        names = {"type": "dns", "domainName": "shop.test", "args": {"cni": {"name": name}}}
        declared = {"type": "services", "services": services or (WEB,)}
        chain = [bridge, names, declared] if self.dns else [bridge, declared]
        chain = [{"cniVersion": "1.1.0", "name": NETWORK} | one for one in chain]
        page = self.folder / "page"
        page.mkdir(exist_ok=True)
        (page / "ping").write_text("pong\n")
        made = Served(self.host, container, None, chain, page)
        self.served.append(made)
        if running:
            made.start()
        for one in chain:
            previous = {} if made.result is None else {"prevResult": made.result}
            made.result = self.host.add(one["type"], one | previous, container)
        return made

    def has_names(self) -> None:
        """The network has names on this host, as the plugin `dns` leaves it."""
        told = {"name": NETWORK, "domain": "shop.test", "addresses": []}
        folder = f"/run/cni-py/dns/{NETWORK}"
        self.host.run("mkdir", "-p", f"{folder}/hosts")
        self.host.run("tee", f"{folder}/network.json", stdin=json.dumps(told))

    def names(self, *sources: str) -> dict[str, set[str]]:
        """To which addresses services lead, by name, as it is published here."""
        found: dict[str, set[str]] = {}
        for source in sources or ("services-here", "services-elsewhere"):
            path = f"/run/cni-py/dns/{NETWORK}/hosts/{source}"
            text = self.host.run("sh", "-c", f"cat {path} 2>/dev/null", check=False).stdout
            for line in text.splitlines():
                if not line.startswith("#"):
                    address, *listed = line.split()
                    for one in listed:
                        found.setdefault(one, set()).add(address)
        return found

    def declared(self) -> list[str]:
        shown = self.host.run("sh", "-c", f"ls -d {FOLDER}/*.json 2>/dev/null", check=False)
        return shown.stdout.split()

    def close(self) -> None:
        for one in self.served:
            if self.dns:
                # Its server is a process, which ends with the last container.
                one.delete()
            one.stop()
        if self.agent is not None:
            self.agent.close()


def registered(path: str) -> list[Instance]:
    """What the registry in a file has."""

    async def look() -> list[Instance]:
        async with StoreRegistry(Sqlite(path)) as registry:
            return list((await registry.list()).instances)

    return asyncio.run(look())


def becomes(look: Callable[[], Any], wanted: Any) -> None:
    """Assert that it is so in the end."""
    found: list[Any] = [None]

    def same() -> bool:
        found[0] = look()
        return bool(found[0] == wanted)

    assert eventually(same, SECONDS), f"{found[0]} and not {wanted}"
