"""What is on the disk after a crash, or somebody's hand: records, leases, allocations, backups."""

from __future__ import annotations

import io
import os
import random
import shutil
import tempfile
from contextlib import redirect_stderr
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.dhcp import client
from cni_py.dhcp import lease as dhcp_lease
from cni_py.dhcp import store as dhcp_store
from cni_py.dhcp.interface import Place
from cni_py.ipam.index import Owner, Sandbox
from cni_py.ipam.ranges import Range, RangeConfig, range_sets
from cni_py.ipam.store import Store
from cni_py.kernel import addresses, dhcp_messages, kept_routes, state_files
from cni_py.kernel.netlink import attribute
from cni_py.plugins import (
    firewall_record,
    host_device_record,
    port_mappings,
    records,
    sbr_record,
    services,
    tuning_backup,
)
from cni_py.services import declaration
from cni_py.services.folder import DeclarationFolder
from cni_py.spec.addresses import parse_cidr, parse_ip
from cni_py.spec.attachment import Attachment
from cni_py.spec.collection import Collection
from cni_py.spec.errors import CniError
from fuzz.target import require_reportable, split

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = True

ATTACHMENT = Attachment("net1", "c1", "eth0")
KINDS: dict[str, type[records.Owned]] = {
    "firewall": firewall_record.Record,
    "host-device": host_device_record.Record,
    "portmap": port_mappings.Record,
    "sbr": sbr_record.Record,
    "own": records.Owned,
    "services": services.Record,
}
# A route to 10.0.0.0/8 through 10.1.0.1, and the address 10.1.0.2/24, as the kernel tells them.
_ROUTE = bytes((2, 8, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0)) + b"".join(
    (attribute(1, b"\n\0\0\0"), attribute(5, b"\n\1\0\1"), attribute(4, b"\2\0\0\0"))
)
_ADDRESS = bytes((2, 24, 0x80, 0, 2, 0, 0, 0)) + attribute(1, b"\n\1\0\2") + attribute(8, bytes(4))


@cache
def folder() -> str:
    """Where the files are; it goes with the process."""
    import atexit

    made = tempfile.mkdtemp(
        prefix="cni-py-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
    )
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def seeds() -> Iterator[bytes]:
    sandbox = records.Sandbox(path="/run/netns/c1", cookie=1, device=2, inode=3, ifindex=4)
    common: dict[str, Any] = {"attachment": ATTACHMENT, "sandbox": sandbox}
    examples = {
        "firewall": firewall_record.Record(
            **common, backend="iptables", addresses=("10.1.0.2",), bridge="cni0", policy="isolated"
        ),
        "host-device": host_device_record.Record(
            **common,
            name="eth7",
            kind="dummy",
            mac="02:00:00:00:00:01",
            permanent_mac="",
            parent="",
            mtu=1500,
            alias="",
            up=True,
            addresses=(_ADDRESS,),
        ),
        "portmap": port_mappings.Record(
            **common,
            backend="nftables",
            addresses=("10.1.0.2/24",),
            mappings=(port_mappings.Mapped(4, "tcp", "", 80, "10.1.0.2", 80),),
        ),
        "sbr": sbr_record.Record(
            **common,
            rules=(sbr_record.OwnRule("10.1.0.2", 100, True),),
            removed=(_ROUTE,),
            replaced=("10.1.0.0/24",),
        ),
        "own": records.Owned(attachment=ATTACHMENT),
        "services": services.Record(
            **common,
            declaration=declaration.Declaration(
                attachment=ATTACHMENT,
                addresses=("10.1.0.2", "fd00::2"),
                services=(
                    declaration.Service(
                        name="web", port=80, metadata={"a": "b"}, check=declaration.Check(path="/x")
                    ),
                ),
            ),
        ),
    }
    for name, record in examples.items():
        yield name.encode() + b"\n" + msgspec.json.encode(record)
    own = tuning_backup.Own(
        **common,
        sysctls={"net/ipv4/conf/eth0/x": tuning_backup.SysctlValue(before="0", after="1")},
        addresses=(_ADDRESS,),
        routes=(_ROUTE,),
    )
    backup = tuning_backup.Backup(mac="02:00:00:00:00:01", promisc=True, mtu=1500, own=own)
    yield b"tuning\n" + msgspec.json.encode(backup)
    yield b"dhcp\n" + msgspec.json.encode(_lease_record())
    yield b"state\n" + b'{"mtime":1,"boot":"x"}'
    entry = {
        "container_id": "c1",
        "ifname": "eth0",
        "boot": records.boot_id(),
        "sandbox": {"path": "/run/netns/c1", "cookie": 1},
        "addresses": {"10.1.0.2": [1, 2]},
    }
    yield b"entry\n" + msgspec.json.encode(entry)
    yield b"used\n\xff\xff\x00\x01"
    yield b"address\nc1\r\neth0"
    yield b"last\n10.1.0.9"


def _lease_record() -> dhcp_store.Record:
    given = {
        1: b"\xff\xff\xff\0",
        3: b"\n\1\0\1",
        51: b"\0\0\1\0",
        54: b"\n\1\0\1",
        121: b"\x08\n\n\1\0\1",
    }
    lease = dhcp_lease.lease_of(parse_ip("10.1.0.9"), given, bytes(6), 1.0)  # type: ignore[arg-type]
    return dhcp_store.Record(
        attachment=ATTACHMENT,
        socket="/run/cni/dhcp.sock",
        boot=records.boot_id(),
        place=_PLACE,
        options={61: b"id"},
        priority=0,
        lease=lease,
        applied=lease,
    )


_PLACE = Place(
    netns="/run/netns/c1",
    netns_id="1:2",
    ifname="eth0",
    ifindex=2,
    mac=bytes(6),
    mtu=1500,
    shares_mac=False,
)


def run(data: bytes) -> None:
    words, content = split(data)
    kind = words[0] if words else ""
    for name in os.listdir(folder()):
        shutil.rmtree(f"{folder()}/{name}")
    try:
        # That a file was damaged is said on stderr.
        with redirect_stderr(io.StringIO()):
            _files(kind, content)
    except CniError as error:
        require_reportable(error, data)


def _files(kind: str, content: bytes) -> None:
    if kind in KINDS:
        _records(KINDS[kind], content)
    elif kind == "tuning":
        _tuning(content)
    elif kind == "dhcp":
        _dhcp(content)
    else:
        _allocations(kind, content)


def _put(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def _records(kind: type[records.Owned], content: bytes) -> None:
    kept = records.Records(f"{folder()}/records", kind)
    path = f"{kept.folder}/{ATTACHMENT.key}.json"
    _put(path, content)
    # The agent reads what the plugin `services` has written, and changes nothing.
    for one in DeclarationFolder(kept.folder).read().declarations:
        assert list(declaration.mistakes(one.services, "services")) == []
    record = kept.load(ATTACHMENT)
    if record is not None:
        _used(record)
        kept.save(record)
    list(kept.every())
    kept.taken(Collection("net1", ()), "it", lambda _: "")
    kept.drop(ATTACHMENT)
    assert kept.load(ATTACHMENT) is None


def _used(record: Any) -> None:
    """What the plugins do first with what a record says: each may refuse with a CniError."""
    str(record.attachment.key)
    for one in getattr(record, "removed", ()):
        _route(one)
    if isinstance(record, (host_device_record.Record, tuning_backup.Own)):
        for one in record.addresses:
            addresses.put_back(1, "eth0", one)
    if isinstance(record, port_mappings.Record):
        for version in record.versions:
            str(record.address(version))
    if isinstance(record, sbr_record.Record):
        for rule in record.rules:
            parse_ip(rule.source)
        for one in record.replaced:
            str(parse_cidr(one).network)


def _route(body: bytes) -> None:
    route = kept_routes.read(body)
    kept_routes.put_back(route, where_possible=True)
    kept_routes.remove(route)


def _tuning(content: bytes) -> None:
    path = f"{folder()}/tuning/c1_eth0.json"
    _put(path, content)
    _, backup = tuning_backup.read(path)
    if backup is not None:
        if backup.own is not None:
            _used(backup.own)
            for one in backup.own.routes:
                _route(one)
        tuning_backup.write(path, backup)
        assert tuning_backup.read(path)[1] == backup
    list(tuning_backup.of_network(f"{folder()}/tuning", "net1"))
    state_files.forget(path)


def _dhcp(content: bytes) -> None:
    store = dhcp_store.Store(f"{folder()}/dhcp")
    _put(f"{folder()}/dhcp/{ATTACHMENT.key}.json", content)
    for record in list(store.records()):
        store.save(record)
        _resumed(record)
    store.remove(ATTACHMENT)


def _resumed(record: dhcp_store.Record) -> None:
    """The daemon goes on with the lease: it is told the server, and in time given back."""
    one = client.Client(client.Identity(bytes(6), record.options), client.Terms(), random.Random(1))
    actions = one.resume(record.lease, 1.0)
    for _ in range(4):
        now = min(one.deadline, 1e12) + 1.0
        actions += one.advance(now)
    actions += [action for action in (one.release(),) if action is not None]
    for action in actions:
        if isinstance(action, client.Send):
            dhcp_messages.encode(action.message)


@cache
def _range() -> Range:
    return range_sets([((RangeConfig(subnet=parse_cidr("10.1.0.0/28")),), "x[0]")], "1.1.0")[0][0]


def _allocations(kind: str, content: bytes) -> None:
    run, owner = _range(), Owner("c1", "eth0")
    store = Store(folder(), "net1")
    with store.locked() as allocations:
        allocations.prepare(owner, Sandbox())
        assert allocations.claim(run, run.address(1))
        allocations.record({0: run.address(1)})
    index = f"{folder()}/.cni-py/net1"
    path = {
        "state": f"{index}/state",
        "entry": f"{index}/owners/{owner.key}",
        "used": f"{index}/used/{run.first:x}-{run.last:x}-4",
        "address": f"{folder()}/net1/{run.address(2)}",
        "last": f"{folder()}/net1/last_reserved_ip.0",
    }.get(kind, f"{index}/owners/x")
    before = os.stat(f"{folder()}/net1")
    _put(path, content)
    if content[:1].isspace():
        # As if nobody had seen the change.
        os.utime(f"{folder()}/net1", ns=(before.st_atime_ns, before.st_mtime_ns))
    with store.locked() as allocations:
        allocations.last_reserved(0)
        allocations.entries()
        free = list(allocations.free_positions(run, 0, run.size))
        assert all(0 <= one < run.size for one in free)
        # Whatever the index says, an address that has a file with an owner is not given away.
        other = Owner("c2", "eth0")
        allocations.prepare(other, Sandbox())
        assert not allocations.claim(run, run.address(1))
        allocations.holder(run.address(2))
        allocations.release(owner)
    with store.locked() as allocations:
        allocations.prepare(other, Sandbox())
        assert allocations.claim(run, run.address(1))
