"""Names: what ADD and DEL of `dns` take, when a name is answered, what a change costs queries.

    .venv/bin/python bench/names.py --document docs/performance.md

Times are of whole processes, in milliseconds, minimum / median / maximum, with the warm server. The
queries come from a container, over UDP; plain dnsmasq has the same names in a file of hosts(5).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host import OURS, ROOT, add_netns, enter, settle
from server import Server
from tables import spread, table, write_document

sys.path.insert(0, str(ROOT))

from cni_py.kernel.netns import open_netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Config = dict[str, Any]

_GATEWAY, _PLAIN = "10.93.0.1", "10.93.0.2"
_NETWORK: Config = {"cniVersion": "1.1.0", "name": "named"}
_BRIDGE = _NETWORK | {
    "type": "bridge",
    "bridge": "named0",
    "isDefaultGateway": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.93.0.0/16", "rangeStart": "10.93.1.0"}]],
    },
}
_DNS = _NETWORK | {"type": "dns", "internal": True}
_HOSTS = Path("/run/cni-py/dns/named/hosts")
_ROUNDS = 4
_WINDOW = 64
_LOST_SECONDS = 2.0
_QUERY = struct.Struct(">HHHHHH")
_QUESTION = b"\0\0\1\0\1"


def main() -> None:
    """Measure, print, and write."""
    arguments = _arguments()
    enter()
    server = Server()
    try:
        rows = list(_measured(arguments))
    finally:
        for netns in _results:
            # With the last one its dnsmasq ends.
            _call("DEL", _DNS, netns)
        server.stop()
    made = table(("what", "measured"), rows)
    print(made)
    for path in arguments.document:
        write_document(path, {"names": made})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adds", type=int, default=100, help="ADDs of containers of their own")
    parser.add_argument("--changes", type=int, default=1000, help="changes during a flood")
    parser.add_argument("--names", type=int, default=1000, help="names of the network, at most")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a flood that is counted")
    parser.add_argument(
        "--document", type=Path, action="append", default=[], help="a file to put the table into"
    )
    return parser.parse_args()


def _measured(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    add_netns("client")
    first = _attach("client", "client")
    yield "ADD of a network's first container, which starts its dnsmasq", f"{first[0]:.0f}"
    yield from _answers(arguments.adds)
    yield from _changes(arguments.changes)
    _publish(arguments.names)
    many = [_attach("again", "client") for _ in range(20)]
    yield f"ADD with {arguments.names:,} names on the network", spread([one[0] for one in many])
    yield from _rates(arguments.names, arguments.seconds)


# Calls.


def _call(verb: str, config: Config, netns: str) -> tuple[float, Config]:
    """How long one call took, and its result."""
    environ = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": netns,
        "CNI_NETNS": f"/run/netns/{netns}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(OURS),
    }
    data = json.dumps(config).encode()
    start = time.perf_counter()
    done = subprocess.run(
        [OURS / config["type"]], input=data, env=environ, stdout=subprocess.PIPE, check=False
    )
    took = (time.perf_counter() - start) * 1000
    if done.returncode != 0:
        sys.exit(f"bench: {config['type']} {verb}: {done.stdout.decode()}")
    return took, json.loads(done.stdout) if done.stdout else {}


_results: dict[str, Config] = {}


def _attach(name: str, netns: str) -> tuple[float, Config]:
    """ADD of dns under a name, after that of bridge where there was none."""
    if netns not in _results:
        _results[netns] = _call("ADD", _BRIDGE, netns)[1]
    own = {"args": {"cni": {"name": name}}, "prevResult": _results[netns]}
    return _call("ADD", _DNS | own, netns)


def _answers(count: int) -> Iterator[tuple[str, str]]:
    adds, dels, waited, at_once = [], [], [], 0
    with _socket() as asked:
        for number in range(count):
            netns = f"c{number}"
            add_netns(netns)
            _results[netns] = _call("ADD", _BRIDGE, netns)[1]
            address = _results[netns]["ips"][0]["address"].partition("/")[0]
            own = {"args": {"cni": {"name": netns}}, "prevResult": _results[netns]}
            adds.append(_call("ADD", _DNS | own, netns)[0])
            returned, is_first = time.perf_counter(), True
            while _ask(asked, netns) != address:
                is_first = False
                waited.append((time.perf_counter() - returned) * 1000)
            at_once += is_first
        for number in range(count):
            dels.append(_call("DEL", _DNS, f"c{number}")[0])
            if _ask(asked, f"c{number}"):
                sys.exit(f"bench: c{number} is answered after its DEL")
            _call("DEL", _BRIDGE, f"c{number}")
    yield "ADD of a further container", spread(adds)
    yield "DEL", spread(dels)
    yield "ADDs after which the first query was answered rightly", f"{at_once} of {count}"
    late = max(waited, default=0.0)
    yield "longest time from ADD's return to the first right answer", f"{late:.0f} ms"


def _changes(count: int) -> Iterator[tuple[str, str]]:
    """A query after the other for a name that stays, while another one comes and goes."""
    done = threading.Event()
    counted = {"asked": 0, "lost": 0, "wrong": 0}
    address = _results["client"]["ips"][0]["address"].partition("/")[0]

    def flood() -> None:
        with _socket() as asked:
            while not done.is_set():
                counted["asked"] += 1
                try:
                    counted["wrong"] += _ask(asked, "client") != address
                except TimeoutError:
                    counted["lost"] += 1

    add_netns("other")
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for number in range(count // 2):
            _attach(f"n{number}", "other")
            _call("DEL", _DNS, "other")
    finally:
        done.set()
        thread.join()
    lost = counted["lost"] + counted["wrong"]
    what = f"queries lost or answered wrongly during {count // 2 * 2:,} changes"
    yield what, f"{lost} of {counted['asked']:,}"


def _publish(count: int) -> None:
    """Further names, as other containers would have them."""
    spare = _HOSTS.parent / "spare"
    for number in range(count):
        spare.write_text(
            f"10.93.{200 + number // 250}.{number % 250 + 1} n{number}.cni.internal n{number}\n"
        )
        spare.chmod(0o644)
        spare.rename(_HOSTS / f"n{number}")
    with _socket() as asked:
        while not _ask(asked, f"n{count - 1}"):
            settle()


# Queries.


def _rates(names: int, seconds: float) -> Iterator[tuple[str, str]]:
    ours, plain = [], []
    with _plain_dnsmasq():
        for _ in range(_ROUNDS):
            ours.append(_rate(_GATEWAY, names, seconds))
            plain.append(_rate(_PLAIN, names, seconds))
    yield "queries a second, the network's dnsmasq", spread(ours, 0)
    yield "queries a second, plain dnsmasq with the same names", spread(plain, 0)


def _rate(server: str, names: int, seconds: float) -> float:
    """Queries a second with some under way at any time."""
    queries = [_query(number, f"n{number}.cni.internal") for number in range(names)]
    answered = sent = 0
    with _socket(server) as asked:
        start = time.perf_counter()
        while (now := time.perf_counter()) - start < seconds:
            while sent - answered < _WINDOW:
                asked.send(queries[sent % names])
                sent += 1
            asked.recv(512)
            answered += 1
    return answered / (now - start)


@contextmanager
def _plain_dnsmasq() -> Iterator[None]:
    subprocess.run(["ip", "address", "add", f"{_PLAIN}/16", "dev", "named0"], check=True)
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        Path(folder).chmod(0o755)
        hosts = Path(folder, "hosts")
        hosts.write_text("".join(one.read_text() for one in sorted(_HOSTS.iterdir())))
        options = [
            f"--listen-address={_PLAIN}",
            f"--addn-hosts={hosts}",
            *("--keep-in-foreground", "--conf-file=/dev/null", "--bind-interfaces", "--no-hosts"),
            *("--no-resolv", "--local=/cni.internal/", "--pid-file="),
        ]
        process = subprocess.Popen(["dnsmasq", *options], stderr=subprocess.DEVNULL)
        try:
            with _socket(_PLAIN) as asked:
                _until(lambda: _ask(asked, "n0.cni.internal"))
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _until(answers: Callable[[], str]) -> None:
    while True:
        try:
            if answers():
                return
        except OSError:
            settle()


@contextmanager
def _socket(server: str = _GATEWAY) -> Iterator[socket.socket]:
    """A socket in the container `client`, connected to a server."""
    netns = open_netns("/run/netns/client")
    assert netns is not None
    with netns, netns.entered():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with made:
        made.settimeout(_LOST_SECONDS)
        made.connect((server, 53))
        yield made


def _query(number: int, name: str) -> bytes:
    labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split("."))
    return _QUERY.pack(number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + _QUESTION


def _ask(asked: socket.socket, name: str) -> str:
    """The address that is answered for a name, `""` for none. Raises TimeoutError."""
    number = int.from_bytes(os.urandom(2))
    asked.send(_query(number, name))
    while True:
        answer = asked.recv(512)
        if _QUERY.unpack_from(answer)[0] == number:
            return socket.inet_ntoa(answer[-4:]) if _QUERY.unpack_from(answer)[3] else ""


if __name__ == "__main__":
    main()
