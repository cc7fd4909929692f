"""One real agent with a kernel of its own, among peers of which only the store tells."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from simulated_nodes import CONFIG, NETWORK, owner_of, said_by

from cni_py.cluster.agent_backend import lease_of
from cni_py.cluster.etcd import Etcd
from cni_py.cluster.flannel import CONFIG_KEY, PREFIX, Subnets
from cni_py.cluster.owner import encode
from cni_py.cluster.store import Put
from fixtures.etcd import ENDING_WITH_US, EtcdCluster

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).parent.parent
_COMMAND = _ROOT / ".venv" / "bin" / "cni-py"
_AT_ONCE = 64
_SECONDS = 120
_IDLE_SECONDS = 32
_CHANGES = 10
_HOST = """ip link set lo up
ip link add eth0 type veth peer name far
ip link set far up
ip link set eth0 up
ip addr add 172.16.0.1/12 dev eth0
ip route add default via 172.31.255.254
"""


@dataclass(frozen=True)
class Measured:
    """`idle` is a part of one processor, `pss` in MiB, `change` and `removal` in milliseconds."""

    peers: int
    pss: float
    ready: float
    ready_cpu: float
    idle: float
    change: float
    removal: float


def measure(peers: int, say: Callable[[str], None]) -> Measured:
    """Start one, and have a few peers come and go."""
    say(f"an agent among {peers:,} peers")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cni-scale-")))
        etcd = EtcdCluster(folder).start()
        stack.callback(etcd.close)
        etcd.leader()
        etcd.ctl("put", f"{PREFIX}/{CONFIG_KEY}", CONFIG.decode())
        asyncio.run(_put(etcd, range(1, peers + 1)))
        agent = _start(folder, etcd.members[0].endpoint)
        stack.callback(agent.wait)
        stack.callback(agent.kill)
        began = time.monotonic()
        _until(agent, lambda: _routes(agent) == peers)
        ready, ready_cpu = time.monotonic() - began, _cpu(agent)
        # What making its own links reported leads to one more comparison.
        time.sleep(3)
        before = _cpu(agent)
        time.sleep(_IDLE_SECONDS)
        idle = (_cpu(agent) - before) / _IDLE_SECONDS
        pss = _pss(agent)
        taken = []
        others = range(peers + 1, peers + 1 + _CHANGES)
        for wanted, change in ((peers + _CHANGES, _put), (peers, _delete)):
            before = _cpu(agent)
            for other in others:
                count = _routes(agent)
                asyncio.run(change(etcd, range(other, other + 1)))
                _until(agent, lambda count=count: _routes(agent) != count)
                time.sleep(0.5)
            assert _routes(agent) == wanted
            taken.append((_cpu(agent) - before) / _CHANGES * 1000)
        return Measured(peers, pss, ready, ready_cpu, idle, *taken)


def _start(folder: Path, endpoint: str) -> subprocess.Popen[bytes]:
    options = (
        f"--etcd-endpoints={endpoint}", f"--lease-file={folder}/node.json",
        f"--identity-file={folder}/identity", f"--socket={folder}/agent.sock",
    )  # fmt: skip
    unshare = shutil.which("unshare") or "unshare"
    with (folder / "agent.log").open("wb") as log:
        return subprocess.Popen(
            [unshare, "--net", "sh", "-ec", f'{_HOST}exec "$@"', "sh",
             *ENDING_WITH_US, str(_COMMAND), "agent", *options],
            stderr=log,
            stdout=log,
        )  # fmt: skip


async def _put(etcd: EtcdCluster, numbers: range) -> None:
    assert NETWORK.v4 is not None
    puts = []
    for number in numbers:
        subnets = Subnets(NETWORK.v4.at(number))
        value = encode(lease_of(said_by(number), subnets), owner_of(number))
        puts.append(Put(f"{PREFIX}/{subnets.key}", value))
    async with Etcd(etcd.access()) as store:
        for first in range(0, len(puts), _AT_ONCE):
            await store.transact((), puts[first : first + _AT_ONCE])


async def _delete(etcd: EtcdCluster, numbers: range) -> None:
    assert NETWORK.v4 is not None
    keys = [f"{PREFIX}/{Subnets(NETWORK.v4.at(one)).key}" for one in numbers]
    async with Etcd(etcd.access()) as store:
        await store.transact((), (), keys)


def _routes(agent: subprocess.Popen[bytes]) -> int:
    """How many peers' routes are in the kernel of the agent's namespace."""
    text = Path(f"/proc/{agent.pid}/net/route").read_text()
    return sum(line.startswith("flannel.1\t") for line in text.splitlines())


def _until(agent: subprocess.Popen[bytes], check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not check():
        if agent.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the agent does not do its work")
        time.sleep(0.02)


def _cpu(agent: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss(agent: subprocess.Popen[bytes]) -> float:
    text = Path(f"/proc/{agent.pid}/smaps_rollup").read_text()
    found = dict(line.split()[:2] for line in text.splitlines()[1:])
    return int(found["Pss:"]) / 1024
