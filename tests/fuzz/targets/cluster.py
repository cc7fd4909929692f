"""What others tell a node of a cluster: the store's records, files, controllers, EC2's metadata."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from contextlib import redirect_stderr, suppress
from functools import cache
from http.client import HTTPConnection
from ipaddress import IPv4Address, IPv4Network, ip_network
from itertools import islice
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from cni_py.cluster import agent_backend, aws_metadata, backends, lease_file, pool_file
from cni_py.cluster.exchange import parse_place
from cni_py.cluster.flannel import FlannelError, NodeLease, Subnets
from cni_py.cluster.flannel_network import parse_network
from cni_py.cluster.owner import owner_of
from cni_py.cluster.peers import Judge
from cni_py.cluster.pools import PREFIX, PoolError, pool_of
from cni_py.cluster.store import Record
from cni_py.cluster.underlay import Chosen
from cni_py.cluster.webhook_access import Access
from cni_py.cluster.webhook_client import Controller, Patience, Route
from cni_py.spec.errors import CniError
from fuzz.target import require_reportable, require_told, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JSON = True

_NETWORK = {"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "VNI": 1}}
_OWN = NodeLease(Subnets(IPv4Network("10.1.1.0/24")), IPv4Address("192.0.2.1"), None, "vxlan")
_LEASE = {
    "PublicIP": "192.0.2.2",
    "PublicIPv6": None,
    "BackendType": "vxlan",
    "BackendData": {"VNI": 1, "VtepMAC": "02:00:00:00:00:02"},
    "CniPy": {"Node": "n2", "Host": "h2"},
}
_POOL = {"network": "10.50.0.0/16", "gateway": "10.50.0.1", "rangeStart": "10.50.1.0"}
_ROUTES = {"routes": [{"destination": "10.1.2.0/24", "gateway": "192.0.2.2"}], "blocked": []}
_PLACE = parse_place("http://127.0.0.1:1/sdn")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
_ANSWERS_END = b"\n--\n"


def seeds() -> Iterator[bytes]:
    yield _json("config", _NETWORK)
    both = {
        "EnableIPv6": True,
        "IPv6Network": "fd00:1::/48",
        "SubnetLen": 26,
        "SubnetMin": "10.1.9.0",
    }
    yield _json("config", _NETWORK | both)
    for kind, keys in (
        ("host-gw", {}), ("ipip", {"DirectRouting": True}),
        ("wireguard", {"ListenPort": 5, "PSK": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="}),
        ("webhook", {"URL": "https://a.example/b", "Cluster": "c", "Timeout": 1}),
        ("aws-vpc", {"RouteTableID": ["rtb-0123456789abcdef0"]}),
    ):  # fmt: skip
        yield _json("config", _NETWORK | {"Backend": {"Type": kind, **keys}})
    yield _json("lease 10.1.2.0-24", _LEASE)
    yield _json("lease 10.1.2.0-24&fd00:1::-64", _LEASE)
    yield _json("pool 10.50.1.0-26", [_POOL, {"parts": [{"prefix": "10.50.1.0/28", "node": "n1"}]}])
    told = {"cluster": "default", "backend": "vxlan", "mtu": 1450, "ipv4Network": "10.1.0.0/16"}
    told |= {"ipv4Subnet": "10.1.1.0/24", "lease": "held", "heldUntil": 1e12}
    yield _json("file", told)
    yield b"file\nFLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.1.1/24\nFLANNEL_MTU=1450\n"
    yield _json("blocks", {"pool": "lan", "network": "10.50.0.0/16", "gateway": "10.50.0.1",
                           "blocks": ["10.50.1.0/26"], "heldUntil": 1e12})  # fmt: skip
    for answer in (
        _HEAD + json.dumps(_ROUTES).encode(),
        _HEAD + b'{"addresses": ["192.0.2.1"], "subnets": []}',
        _HEAD + b'{"status": "ok", "message": "\\u0000"}',
        b"HTTP/1.1 503 no\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n",
        b"HTTP/1.1 429 no\r\nRetry-After: 99999999999\r\n\r\n",
        b'HTTP/1.0 403 no\r\nContent-Length: 15\r\n\r\n{"title": "no"}',
        b"HTTP/1.1 302 no\r\nLocation: http://[\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n-1\r\n",
    ):
        yield b"controller\n" + answer
    found = (b"token==", b"eu-west-1", b"i-0123456789abcdef0", b"eni-0123456789abcdef0")
    yield b"instance\n" + _ANSWERS_END.join(b"HTTP/1.1 200 OK\r\n\r\n" + one for one in found)


def _json(head: str, value: object) -> bytes:
    return f"{head}\n{json.dumps(value)}".encode()


def run(data: bytes) -> None:
    words, content = split(data)
    reader = _READERS.get(words[0] if words else "", _config)
    try:
        # That a file was damaged is said on stderr.
        with redirect_stderr(io.StringIO()):
            reader(" ".join(words[1:]), content)
    except CniError as error:
        require_reportable(error, data)
    except (FlannelError, PoolError) as error:
        require_told(error)


# The store.


def _record(key: str, value: bytes) -> Record:
    return Record(key, value, 1, 1, 1)


def _config(_: str, content: bytes) -> None:
    network = parse_network(content)
    for pool in (network.v4, network.v6):
        if pool is not None:
            assert pool.count > 0
            assert pool.offers(pool.at(0))  # type: ignore[arg-type]
            assert pool.offers(pool.at(pool.count - 1))  # type: ignore[arg-type]
    configured = json.loads(network.backend or b"{}")
    backends.make(configured, Chosen("lo"), agent_backend.versions(network)).close()


def _lease(key: str, content: bytes) -> None:
    owner_of(content)
    network = parse_network(json.dumps(_NETWORK).encode())
    judge = Judge("/net", network, _OWN)
    judge.put(_record(f"/net/subnets/{key}", content))
    found = judge.peers()
    assert len(found.leases) + len(found.refused) <= 1
    for one in found.leases:
        subnet = one.subnets.v4
        assert subnet is not None
        # Whatever it says, this node's own packets stay, and those of others outside the network.
        assert subnet.subnet_of(IPv4Network("10.1.0.0/16"))
        assert not subnet.overlaps(IPv4Network("10.1.1.0/24"))
        assert one.public_ip not in (None, _OWN.public_ip)
    assert len(found.nodes) == len(found.leases)


def _pool(key: str, content: bytes) -> None:
    """The configuration, and a block under the key."""
    prefix = f"{PREFIX}/lan/"
    config = block = content
    with suppress(ValueError, RecursionError):
        both = json.loads(content)
        if isinstance(both, list) and len(both) == 2:
            config, block = (json.dumps(one).encode(errors="replace") for one in both)
    records = [_record(f"{prefix}config", config), _record(f"{prefix}blocks/{key}", block)]
    pool = pool_of(records, prefix)
    assert len(pool.blocks) == 1
    (there,) = pool.blocks.values()
    for free in there.free():
        for own in there.of("n1"):
            assert not free.overlaps(own)  # type: ignore[arg-type]
    # What makes no sense is not to be had.
    if pool.refused:
        assert there.free() == []
    for one in islice(pool.config.blocks("n1"), 3):
        assert one.subnet_of(pool.config.net)  # type: ignore[arg-type]
        first, last, count = pool.config.usable(one)
        assert count <= last - first + 1 <= one.num_addresses


# Files.


@cache
def _folder() -> str:
    import atexit

    made = tempfile.mkdtemp(prefix="cni-py-fuzz-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def _file(_: str, content: bytes) -> None:
    path = f"{_folder()}/lease"
    _write(path, content)
    lease_file.problem(path)
    lease = lease_file.read(path)
    for one in lease.subnets:
        assert any(one.network.subnet_of(other.network)  # type: ignore[arg-type]
                   for other in lease.networks if other.version == one.version)  # fmt: skip


def _blocks(_: str, content: bytes) -> None:
    _write(pool_file.path_of("lan", _folder()), content)
    told = pool_file.read("lan", _folder())
    if told is not None:
        network = ip_network(told.network)
        for first, last in told.runs:
            assert int(network[0]) <= first <= last <= int(network[-1])


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
    os.utime(path)


# What is answered.


class _Answering:
    """A connection whose other end has said this already."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def sendall(self, _: Any) -> None:
        """Nobody listens."""

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._answer))  # type: ignore[arg-type]

    def close(self) -> None:
        """There is nothing to close."""


def _answered(answers: list[bytes], call: Callable[[], object]) -> None:
    """Call, with one answer after another; the last one again and again."""

    def connect(connection: HTTPConnection) -> None:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        connection.sock = _Answering(answer)  # type: ignore[assignment]

    with patch.object(HTTPConnection, "connect", connect):
        call()


def _controller(_: str, content: bytes) -> None:
    asked = Controller(_PLACE, "c", Access("/nonexistent", _PLACE), Patience(5.0, 0.0, 0.0, 0.0))
    route = Route("10.1.2.0/24", "192.0.2.2")
    for call in (
        asked.health,
        lambda: asked.node("n"),
        lambda: asked.withdraw("n"),
        lambda: asked.routes("n"),
        lambda: asked.replace_routes("n", [route]),
    ):
        # Each has its own answer to that.
        try:
            _answered([content], call)  # type: ignore[arg-type]
        except CniError as error:
            require_reportable(error, content)


def _instance(_: str, content: bytes) -> None:
    found: list[aws_metadata.Instance] = []
    ask = lambda: found.append(aws_metadata.instance("02:00:00:00:00:01", "eth0"))  # noqa: E731
    with patch.dict(os.environ, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"}):
        _answered(content.split(_ANSWERS_END), ask)
    for one in (found[0].region, found[0].instance, found[0].interface):
        assert one.isascii()
        assert one.isprintable()


_READERS: dict[str, Callable[[str, bytes], None]] = {
    "config": _config,
    "lease": _lease,
    "pool": _pool,
    "file": _file,
    "blocks": _blocks,
    "controller": _controller,
    "instance": _instance,
}
