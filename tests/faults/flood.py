"""`make flood`: hundreds of containers, dozens of calls at once, some of them killed.

Each container is called as a runtime calls it, one call after another: ADD of a network's plugins
in turn with the result handed on, CHECK and DEL with the cached result, and a DEL after whatever
failed or was killed. Calls of different containers overlap, GC comes in between, and SIGKILL hits
callers, workers, and the server. At the end everything is detached, and the host must be as it was
before.

    PYTHONPATH=tests .venv/bin/python -m faults.flood --seconds 300 --served warm
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures.dump import dump, left_behind
from fixtures.host import BIN, Container, Host
from fixtures.leaks import leaks
from fixtures.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEADLINE_SECONDS = 120.0
_ATTEMPTS = 5
# What a caller hears whose worker was killed.
_LOST_WORKER = "the cni-py server ended during the call"
# Of 100 calls of a verb so many are killed.
_KILLED = {"ADD": 6, "DEL": 5, "CHECK": 2, "GC": 10}
_WORKER_KILL_SECONDS, _SERVER_KILL_SECONDS = 1.5, 20.0

Config = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A list of plugins, as a runtime reads it from a file."""

    name: str
    ifname: str
    plugins: tuple[Config, ...]

    def configs(self, index: int, **extra: Any) -> list[Config]:
        """What each plugin gets on stdin for container `index`: its capabilities filled in."""
        made = []
        for plugin in self.plugins:
            config = {"cniVersion": "1.1.0", "name": self.name, **plugin, **extra}
            capabilities = config.pop("capabilities", {})
            given = {key: one for key, one in _runtime(index).items() if capabilities.get(key)}
            made.append(config | ({"runtimeConfig": given} if given else {}))
        return made


def _runtime(index: int) -> Config:
    return {
        "portMappings": [{"hostPort": 20000 + index, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 10**8, "ingressBurst": 10**7,
                      "egressRate": 10**8, "egressBurst": 10**7},
    }  # fmt: skip


def _ipam(subnet: str) -> Config:
    return {"type": "host-local", "ranges": [[{"subnet": subnet}]]}


def _bridge(bridge: str, subnet: str) -> Config:
    base = {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True}
    return base | {"ipam": _ipam(subnet)}


# Twice as many addresses as containers: what leaks is missed in the end.
NETWORKS = (
    Network("plain", "eth0", (_bridge("br-plain", "10.90.0.0/22"),)),
    Network(
        "chain",
        "net1",
        (
            _bridge("br-chain", "10.91.0.0/22"),
            {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
            {"type": "firewall"},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
            {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
        ),
    ),
)

# Further ones, for those who ask: routed, a child of the host's `up0`, a device that a VM opens.
OTHER_KINDS = (
    Network(
        "routed",
        "net2",
        (
            {"type": "ptp", "ipMasq": True, "ipam": _ipam("10.92.0.0/22")},
            {"type": "sbr"},
        ),
    ),
    Network(
        "child", "net3", ({"type": "macvlan", "master": "up0", "ipam": _ipam("10.93.0.0/22")},)
    ),
    Network("device", "net4", ({"type": "tap", "ipam": _ipam("10.94.0.0/22")},)),
)


@dataclass(frozen=True)
class Options:
    """How hard, how long, and on what."""

    seconds: float = 300.0
    containers: int = 500
    at_once: int = 64
    served: str = "standalone"
    folder: str = str(BIN)
    seed: int = 1
    every_kind: bool = False

    @property
    def is_ours(self) -> bool:
        return self.folder == str(BIN)

    @property
    def networks(self) -> tuple[Network, ...]:
        """All that a container may be on."""
        return NETWORKS + OTHER_KINDS if self.every_kind else NETWORKS

    def networks_of(self, index: int) -> tuple[Network, ...]:
        """Those that container `index` is on: the first, and every second one also on another."""
        first, *others = self.networks
        return (first, others[index // 2 % len(others)]) if index % 2 else (first,)


@dataclass
class Counts:
    """What happened; `notes` holds the first of each kind of trouble."""

    calls: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    trouble: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    longest: float = 0.0
    seconds: float = 0.0
    leaked: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, verb: str, seconds: float) -> None:
        with self._lock:
            self.calls[verb] += 1
            self.longest = max(self.longest, seconds)

    def kill(self, what: str) -> None:
        with self._lock:
            self.killed[what] += 1

    def wrong(self, kind: str, note: str) -> None:
        with self._lock:
            self.trouble[kind] += 1
            if self.trouble[kind] <= 8:
                self.notes.append(f"{kind}: {note}")


class InterruptionError(Exception):
    """The call was killed, by us."""


class CallError(Exception):
    """The call failed by itself."""


class Sharing:
    """Calls share, a GC of the same network is alone, as the protocol has it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._sharing = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._condition:
                self._sharing -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._alone)
            self._alone = True
            self._condition.wait_for(lambda: not self._sharing)
        try:
            yield
        finally:
            with self._condition:
                self._alone = False
                self._condition.notify_all()


@dataclass
class Attachment:
    """One container on one network. `state`: idle, attached, or unknown after what was killed."""

    index: int
    container: Container
    network: Network
    state: str = "idle"
    result: Config | None = None


class Flood:
    """The runtime."""

    def __init__(self, host: Host, options: Options, containers: list[Container]) -> None:
        self.host = host
        self.options = options
        self.counts = Counts()
        self.attachments = [
            [Attachment(index, container, network) for network in options.networks_of(index)]
            for index, container in enumerate(containers)
        ]
        self._random = [random.Random(f"{options.seed} {n}") for n in range(len(containers))]
        self._sharing = {one.name: Sharing() for one in options.networks}
        self._holders: dict[str, Attachment] = {}
        self._lock = threading.Lock()
        self._typical: dict[str, float] = {}
        self._over = threading.Event()

    # The whole.

    def run(self) -> Counts:
        """Flood for the given time, then detach everything that is left."""
        began = time.monotonic()
        order = list(range(len(self.attachments)))
        random.Random(self.options.seed).shuffle(order)
        queue = iter(_Rounds(order))
        until = began + self.options.seconds
        chaos = threading.Thread(target=self._kill_servers)
        if self.host.server is not None:
            chaos.start()
        with ThreadPoolExecutor(self.options.at_once) as pool:
            futures = [pool.submit(self._work, queue, until) for _ in range(self.options.at_once)]
        self.counts.seconds = time.monotonic() - began
        self._over.set()
        if chaos.ident is not None:
            chaos.join()
        with ThreadPoolExecutor(self.options.at_once) as pool:
            every = [one for listed in self.attachments for one in listed]
            futures += [pool.submit(self._finish, one) for one in every]
        for future in futures:
            future.result()
        return self.counts

    def _work(self, queue: Iterator[int], until: float) -> None:
        while time.monotonic() < until:
            with self._lock:
                index = next(queue)
            if index is None:
                time.sleep(0.01)
                continue
            try:
                self._step(index)
            finally:
                with self._lock:
                    queue.give_back(index)

    def _step(self, index: int) -> None:
        dice = self._random[index]
        one = dice.choice(self.attachments[index])
        roll = dice.random()
        if roll < 0.02:
            self._collect(one.network, dice)
        elif one.state == "unknown":
            self._delete(one, dice)
        elif one.state == "idle":
            self._add(one, dice) if roll < 0.9 else self._delete(one, dice)
        elif roll < 0.4:
            self._check(one, dice)
        else:
            self._delete(one, dice)

    # Verbs.

    def _add(self, one: Attachment, dice: random.Random) -> None:
        with self._sharing[one.network.name].shared():
            one.state = "unknown"
            result: Config | None = None
            try:
                for config in one.network.configs(one.index):
                    given = config if result is None else config | {"prevResult": result}
                    output = self._call(config["type"], "ADD", given, one, dice)
                    result = json.loads(output)
            except InterruptionError:
                pass
            except CallError as error:
                self.counts.wrong("failed ADD", str(error))
            else:
                one.result, one.state = result, "attached"
                self._note_addresses(one)
        if one.state != "attached" and dice.random() < 0.8:
            # A runtime does so at once, or when it comes back.
            self._delete(one, dice)

    def _note_addresses(self, one: Attachment) -> None:
        assert one.result is not None
        with self._lock:
            for ip in one.result["ips"]:
                holder = self._holders.get(ip["address"])
                if holder is not None:
                    note = f"{ip['address']}: {one.container.id}, {holder.container.id}"
                    self.counts.wrong("duplicate address", note)
                self._holders[ip["address"]] = one

    def _forget_addresses(self, one: Attachment) -> None:
        with self._lock:
            for ip in (one.result or {}).get("ips", ()):
                if self._holders.get(ip["address"]) is one:
                    del self._holders[ip["address"]]

    def _check(self, one: Attachment, dice: random.Random) -> None:
        with self._sharing[one.network.name].shared():
            try:
                for config in one.network.configs(one.index, prevResult=one.result):
                    self._call(config["type"], "CHECK", config, one, dice)
            except InterruptionError:
                pass
            except CallError as error:
                self.counts.wrong("failed CHECK", str(error))

    def _delete(self, one: Attachment, dice: random.Random | None) -> None:
        """In the reverse order, and no further after what fails; the result is kept for again."""
        with self._sharing[one.network.name].shared():
            self._forget_addresses(one)
            one.state = "unknown"
            extra = {} if one.result is None else {"prevResult": one.result}
            try:
                for config in reversed(one.network.configs(one.index, **extra)):
                    self._call(config["type"], "DEL", config, one, dice)
            except InterruptionError:
                pass
            except CallError as error:
                self.counts.wrong("failed DEL", str(error))
            else:
                one.state, one.result = "idle", None

    def _collect(self, network: Network, dice: random.Random) -> None:
        """With all that are attached or about to be.

        Half of the time alone; else beside calls for attachments that are on the list.
        """
        if dice.random() < 0.5:
            with self._sharing[network.name].alone():
                self._collect_now(network, dice, lambda one: one.state == "attached")
        else:
            self._collect_now(network, dice, lambda _: True)

    def _collect_now(self, network: Network, dice: random.Random, is_valid: Any) -> None:
        every = [one for listed in self.attachments for one in listed if one.network is network]
        valid = [
            {"containerID": one.container.id, "ifname": network.ifname}
            for one in every
            if is_valid(one)
        ]
        extra: Config = {"cni.dev/valid-attachments": valid}
        try:
            for config in network.configs(0, **extra):
                config.pop("runtimeConfig", None)
                self._call(config["type"], "GC", config, None, dice)
        except InterruptionError:
            pass
        except CallError as error:
            self.counts.wrong("failed GC", str(error))

    def _finish(self, one: Attachment) -> None:
        """What a runtime does at last: DEL of what is attached, and of what it is not sure of."""
        for _ in range(_ATTEMPTS):
            if one.state == "idle":
                return
            self._delete(one, None)

    # One call.

    def _call(
        self, plugin: str, verb: str, config: Config, one: Attachment | None, dice: Any
    ) -> str:
        """Its output. With dice it may be killed, before it would typically end."""
        folder = self.options.folder
        environ = {"CNI_COMMAND": verb, "CNI_PATH": folder, "PATH": _PATH}
        if one is not None:
            environ |= one.container.environ(verb, one.network.ifname, folder)
        if self.options.served == "standalone":
            environ["CNI_PY_SOCKET"] = ""
        key = f"{plugin} {verb}"
        kill_after = None
        if dice is not None and dice.random() * 100 < _KILLED[verb]:
            kill_after = dice.random() * 1.2 * self._typical.get(key, 0.5)
        began = time.monotonic()
        status, output = self._run(f"{folder}/{plugin}", environ, config, kill_after, dice)
        took = time.monotonic() - began
        self.counts.call(verb, took)
        if status is None:
            self.counts.kill(f"{verb} calls")
            raise InterruptionError
        if kill_after is None:
            self._typical[key] = 0.9 * self._typical.get(key, took) + 0.1 * took
        if status == 0:
            return output
        if _LOST_WORKER in output:
            raise InterruptionError
        who = "" if one is None else f" of {one.container.id}"
        raise CallError(f"{plugin} {verb}{who}: {' '.join(output.split())[:400]}")

    def _run(
        self,
        path: str,
        environ: dict[str, str],
        config: Config,
        kill_after: float | None,
        dice: Any,
    ) -> tuple[int | None, str]:
        """Exit status and output; the status is None when it was killed before it ended."""
        process = subprocess.Popen(
            [*self.host.prefix, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            text=True,
            start_new_session=True,
        )
        killed = False
        with process:
            try:
                output, errors = process.communicate(
                    json.dumps(config), _DEADLINE_SECONDS if kill_after is None else kill_after
                )
            except subprocess.TimeoutExpired:
                killed = True
                if kill_after is None:
                    note = f"{Path(path).name} {environ['CNI_COMMAND']}: {_where(process.pid)}"
                    self.counts.wrong("call without an end", note)
                # Some runtimes kill what they started alone, some all of its children.
                if kill_after is None or dice.random() < 0.5:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
                output, errors = process.communicate()
        if "Traceback" in errors:
            self.counts.wrong("traceback", errors[-1500:])
        if killed or process.returncode == -signal.SIGKILL:
            return None, output
        return process.returncode, output

    # Kills of what serves.

    def _kill_servers(self) -> None:
        dice = random.Random(f"{self.options.seed} servers")
        next_server = time.monotonic() + _SERVER_KILL_SECONDS * dice.random()
        while not self._over.wait(_WORKER_KILL_SECONDS * 2 * dice.random()):
            server = self.host.server
            assert server is not None
            if time.monotonic() > next_server:
                self.counts.kill("servers")
                server.process.kill()
                server.process.wait()
                self._over.wait(dice.random())
                self.host.server = Server(self.host.prefix)
                next_server = time.monotonic() + _SERVER_KILL_SECONDS * 2 * dice.random()
                continue
            with suppress(OSError, IndexError):
                os.kill(dice.choice(server.workers()), signal.SIGKILL)
                self.counts.kill("workers")


class _Rounds:
    """Containers that no call is made for, in turn; None when there is none. Not locked."""

    def __init__(self, order: list[int]) -> None:
        self._free = order

    def __iter__(self) -> _Rounds:
        return self

    def __next__(self) -> Any:
        return self._free.pop(0) if self._free else None

    def give_back(self, index: int) -> None:
        self._free.append(index)


def _where(pid: int) -> str:
    """Where a process of the group waits."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if os.getpgid(int(folder.name)) == pid:
                name, wchan = (folder / "comm").read_text(), (folder / "wchan").read_text()
                found.append(f"{name.strip()} in {wchan}")
    return ", ".join(found)


def flood(host: Host, options: Options) -> Counts:
    """Flood a host that has nothing on it yet."""
    names = [f"c{index}" for index in range(options.containers)]
    script = "set -e; for name in $NAMES; do ip netns add $name; done"
    host.run("sh", "-c", script, env={"NAMES": " ".join(names)})
    containers = [Container(host, f"id-{name}", f"/run/netns/{name}") for name in names]
    if options.every_kind:
        host.run("ip", "link", "add", "up0", "up", "type", "veth", "peer", "up1")
    # What stays by design is there before: bridges, tables, folders.
    first = Flood(host, options, containers[:2])
    for network in options.networks:
        one = Attachment(1, containers[1], network)
        first._delete(one, None)
        for config in one.network.configs(1):
            given = config if one.result is None else config | {"prevResult": one.result}
            one.result = json.loads(first._call(config["type"], "ADD", given, one, None))
        first._delete(one, None)
    before = dump(host)
    counts = Flood(host, options, containers).run()
    counts.leaked = left(host, before, ours=options.is_ours)
    return counts


def left(host: Host, before: dict[str, list[str]], *, ours: bool) -> list[str]:
    """What there is now and was not before. Links go a moment after the call that deletes them."""
    deadline = time.monotonic() + 10
    found = left_behind(host, before)
    while any("DOWN" in one for one in found) and time.monotonic() < deadline:
        found = left_behind(host, before)
    return ([f"leak: {one}" for one in leaks(host)] if ours else []) + found


def table_of(counts: Counts) -> list[str]:
    """One column of the table."""
    killed = sum(counts.killed.values())
    kinds = ("duplicate address", "failed ADD", "failed DEL", "failed CHECK", "failed GC",
             "call without an end")  # fmt: skip
    return [
        f"{counts.seconds:.0f}",
        *(f"{counts.calls[verb]:,}" for verb in ("ADD", "DEL", "CHECK", "GC")),
        f"{killed:,}",
        *(f"{counts.trouble[kind]:,}" for kind in kinds),
        f"{len(counts.leaked):,}",
        f"{counts.longest:.1f}",
    ]


ROWS = (
    "seconds", "calls of ADD", "calls of DEL", "calls of CHECK", "calls of GC",
    "SIGKILL to callers, workers, the server", "duplicate addresses", "failed ADDs", "failed DELs",
    "failed CHECKs", "failed GCs", "calls that did not end in 120 s",
    "left on the host after the last DEL", "longest call, seconds",
)  # fmt: skip


def measured(options: Options) -> Counts:
    """Flood a host of its own."""
    host = Host.start()
    try:
        if options.served == "warm":
            host.serve()
        return flood(host, options)
    finally:
        host.close()


def main() -> int:
    """Flood ours in one mode or both, and the reference where asked; print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--containers", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--served", choices=("standalone", "warm", "both"), default="both")
    parser.add_argument("--reference", help="the same with the executables of this folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--every-kind", action="store_true", help="also ptp with sbr, macvlan and tap"
    )
    parser.add_argument("--document", type=Path, help="write the table into this file")
    given = parser.parse_args()
    base = Options(
        given.seconds,
        given.containers,
        given.at_once,
        seed=given.seed,
        every_kind=given.every_kind,
    )
    modes = ("standalone", "warm") if given.served == "both" else (given.served,)
    runs = [(f"cni-py, {mode}", Options(**{**vars(base), "served": mode})) for mode in modes]
    if given.reference:
        folder = given.reference
        runs.append(("reference", Options(**{**vars(base), "folder": folder})))
    columns, bad = [], False
    for name, options in runs:
        counts = measured(options)
        columns.append([name, *table_of(counts)])
        print(f"{name}: {dict(counts.calls)} killed {dict(counts.killed)}", flush=True)
        for row, value in zip(ROWS, table_of(counts), strict=True):
            print(f"  {row}: {value}")
        for line in [*counts.notes, *counts.leaked[:40]]:
            print(f"  {line}")
        sys.stdout.flush()
        bad = bad or (options.is_ours and bool(counts.trouble or counts.leaked))
    if given.document:
        _write(given.document, given, columns)
    return int(bad)


def _write(path: Path, given: argparse.Namespace, columns: list[list[str]]) -> None:
    sys.path.insert(0, str(ROOT / "bench"))
    from tables import table, write_document

    lines = zip(ROWS, *(column[1:] for column in columns), strict=True)
    second = "bridge, portmap,\nfirewall, bandwidth and tuning"
    more = ""
    if given.every_kind:
        second += ", or with ptp and sbr, macvlan, or tap"
        more = " --every-kind"
    text = (
        f"{given.containers} containers, half of them also on a second network with {second}; "
        f"{given.at_once} calls at once; seed {given.seed}. Written by\n`make flood FLOOD="
        f"'--seconds {given.seconds:.0f}{more} --reference FOLDER --document docs/reliability.md'`."
        "\n\n" + table(("", *(column[0] for column in columns)), lines)
    )
    write_document(path, {"flood": text})


if __name__ == "__main__":
    sys.exit(main())
