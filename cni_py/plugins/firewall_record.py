"""What firewall has set for an attachment, and who else an address or a bridge is held by.

The rules themselves do not say whose they are: iptables' are the reference plugin's, and a bridge's
isolation is there for all of its containers. So beside the record there is an empty file in a
folder an address and a bridge: nobody has to read all records.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import links, lock, markers, state_files
from cni_py.kernel.errors import kernel_error
from cni_py.kernel.netlink import Netlink

from . import records, veth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.spec.attachment import Attachment

OPEN, SAME_BRIDGE, ISOLATED = "open", "same-bridge", "isolated"

_FOLDER = "/run/cni-py/firewall"
_HELD = f"{_FOLDER}/held"
_BRIDGE, _ADDRESS = "bridge-", "address-"


class Record(records.Record, frozen=True, kw_only=True):
    """What ADD sets.

    `bridge` is the interface through which the container is reached, `port` its own port on a
    bridge; both are empty where `policy` is open. `isolation` is the backend of the policy.
    """

    backend: str
    addresses: tuple[str, ...]
    admin_chain: str = ""
    zone: str = ""
    policy: str = OPEN
    bridge: str = ""
    port: str = ""
    isolation: str = ""

    def of_version(self, version: int) -> list[str]:
        """The addresses of IPv4 or IPv6."""
        return [one for one in self.addresses if (6 if ":" in one else 4) == version]

    def without_port(self) -> Record:
        """The same where the port needs no rule of its own."""
        return msgspec.structs.replace(self, port="")

    @property
    def uses_nftables(self) -> bool:
        """Whether anything of it is in nftables."""
        return "nftables" in (self.backend, self.isolation) or bool(self.port)

    @property
    def versions(self) -> list[int]:
        """The IP versions of the addresses."""
        return [version for version in (4, 6) if self.of_version(version)]


RECORDS = records.Records(_FOLDER, Record)


@contextmanager
def serialised(record: Record) -> Iterator[None]:
    """Let no other call change a bridge's isolation if this one does, nor restore rules.

    Raises CniError 11.
    """
    with (
        lock.on_folder(_FOLDER) if record.bridge else nullcontext(),
        lock.changing_rules(),
    ):
        yield


def hold(record: Record) -> None:
    """Note who holds the addresses and the bridge. Raises KernelError."""
    for path in _held_by(record):
        folder = os.path.dirname(path)
        while True:
            try:
                os.makedirs(folder, 0o700, exist_ok=True)
                markers.touch(path)
                break
            except FileNotFoundError:
                # The last holder has gone, and has taken the folder away.
                continue
            except OSError as error:
                raise kernel_error(f"write {path}", error) from error


def release(record: Record) -> None:
    """Take that back. Raises KernelError."""
    _release(_held_by(record))


def release_noted(wanted: str) -> None:
    """Take back all that is noted of a key. Raises KernelError."""
    found = [f"{folder}/{name}" for folder in _names("") for name in _names(folder)]
    _release(f"{_HELD}/{one}" for one in found if state_files.key_of(one) == wanted)


def _release(paths: Iterable[str]) -> None:
    for path in paths:
        try:
            state_files.remove(path)
            os.rmdir(os.path.dirname(path))
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in records.NOT_EMPTY:
                raise kernel_error(f"remove {path}", error) from error


def noted(wanted: str) -> tuple[tuple[str, ...], str, str]:
    """The addresses, bridge and policy that are noted of a key whose record was damaged.

    This looks at every address and bridge of the host.
    """
    addresses, bridge, policy = [], "", OPEN
    for folder in _names(""):
        for name in _names(folder):
            key, _, asked = name.partition(".")
            if key != wanted:
                continue
            if folder.startswith(_ADDRESS):
                addresses.append(folder.removeprefix(_ADDRESS))
            else:
                bridge, policy = folder.removeprefix(_BRIDGE), asked
    return tuple(addresses), bridge, policy


def has_other_ports(bridge: str, attachment: Attachment) -> bool:
    """Whether a bridge has ports besides the attachment's. Raises KernelError."""
    with Netlink() as host:
        link = links.get(host, bridge)
        if link is None:
            return False
        ports = [one for one in links.dump(host, "veth") if one.master == link.ifindex]
    return any(one.name != attachment.host_ifname for one in ports)


def is_held(address: str, besides: str) -> bool:
    """Whether another attachment than that of the key `besides` has the address."""
    return any(key != besides for key in _names(f"{_ADDRESS}{address}"))


def live_holder(address: str, besides: str) -> Record | None:
    """The record of a living container that has the address too, but that of the key `besides`."""
    for key in _names(f"{_ADDRESS}{address}"):
        if key != besides:
            record = RECORDS.by_key(key)
            if record is not None and _lives(record):
                return record
    return None


def _lives(record: Record) -> bool:
    """By its namespace, or where that cannot be seen from here, by a pair's host end."""
    if record.sandbox.is_alive():
        return True
    with Netlink() as host:
        port = links.get(host, record.attachment.host_ifname)
    return port is not None and port.alias.startswith(record.attachment.key)


def bridge_policy(bridge: str, besides: str = "") -> str:
    """The strictest policy that containers of the bridge ask for; `open` without any."""
    asked = {
        policy
        for key, _, policy in (name.partition(".") for name in _names(f"{_BRIDGE}{bridge}"))
        if key != besides
    }
    return next((one for one in (ISOLATED, SAME_BRIDGE) if one in asked), OPEN)


def policy_of_bridge(record: Record) -> str:
    """What the record's bridge gets: the strictest that any of its containers asks for."""
    asked = bridge_policy(record.bridge) if record.bridge else OPEN
    return record.policy if asked == OPEN or record.policy == ISOLATED else asked


def live_records() -> list[Record]:
    """The records of containers that live. Raises CniError.

    A namespace may be at a path that cannot be seen from here, but a pair's host end dies with it.
    """
    with Netlink() as host:
        attached = veth.attached(host)
    return [
        record
        for record in RECORDS.every()
        if record.attachment.key in attached or record.sandbox.is_alive()
    ]


def _held_by(record: Record) -> Iterator[str]:
    key = record.attachment.key
    for address in record.addresses:
        yield f"{_HELD}/{_ADDRESS}{address}/{key}"
    if record.bridge:
        yield f"{_HELD}/{_BRIDGE}{record.bridge}/{key}.{record.policy}"


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(f"{_HELD}/{folder}"))
    except FileNotFoundError:
        return []
