"""What a node has of a pool: the agent writes it, the plugin `cluster` reads it.

A pool is the address range of one network that several nodes share, such as a layer-2 segment. Each
node has blocks of it, and gives out addresses of those without asking anybody. Who uses them on a
node is told the other way: the network whose plugin has come first, and the folder with a file an
address.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import msgspec

from cni_py.kernel import state_files
from cni_py.kernel.boot_clock import now
from cni_py.kernel.errors import kernel_error
from cni_py.kernel.lock import on_folder
from cni_py.spec.errors import CniError, Code

FOLDER = "/run/cni-py/cluster/pools"

_SUFFIX, _USER_SUFFIX = ".json", ".user"
# The lock of host-local's folder, which is no address.
LOCK = "lock"


class PoolFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A node's blocks; prefixes are texts, addresses too. `code` is a CNI error's, for STATUS."""

    pool: str
    network: str
    gateway: str = ""
    range_start: str = ""
    """The first and the last address of the pool that anybody may have; `""`: all."""
    range_end: str = ""
    blocks: tuple[str, ...] = ()
    held_until: float = 0.0
    """Seconds of CLOCK_BOOTTIME until which nobody else can have got the blocks."""
    is_full: bool = False
    """Every block of the pool has been claimed by some node."""
    code: int = 0
    msg: str = ""
    details: str = ""

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """First and last address of each block that may be given out, as integers. In order."""
        lowest, highest = ends(self.network, self.range_start, self.range_end)
        blocks = (ip_network(one) for one in self.blocks)
        clipped = (
            (max(lowest, int(one.network_address)), min(highest, int(one.broadcast_address)))
            for one in blocks
        )
        return tuple(sorted((first, last) for first, last in clipped if first <= last))


def ends(network: str, start: str, end: str) -> tuple[int, int]:
    """The first and the last address of a pool that can be given out, as integers."""
    net = ip_network(network)
    lowest = int(net.network_address) + 1
    # The last address of an IPv4 network is its broadcast address; IPv6 has none.
    highest = int(net.broadcast_address) - (1 if net.version == 4 else 0)
    if start:
        lowest = max(lowest, int(ip_address(start)))
    if end:
        highest = min(highest, int(ip_address(end)))
    return lowest, highest


class User(msgspec.Struct, frozen=True):
    """The network that gives out the pool's addresses on this node, and its folder."""

    network: str
    folder: str


def path_of(pool: str, folder: str = FOLDER) -> str:
    """Where the node's blocks of the pool are told."""
    return f"{folder}/{pool}{_SUFFIX}"


def write(told: PoolFile, folder: str = FOLDER) -> None:
    """Replace the file in one step. Raises KernelError."""
    state_files.save(path_of(told.pool, folder), msgspec.json.encode(told) + b"\n")


def read(pool: str, folder: str = FOLDER) -> PoolFile | None:
    """The node's blocks, None without any.

    Raises CniError 6 for what makes no sense, KernelError.
    """
    path = path_of(pool, folder)
    try:
        written = os.lstat(path).st_mtime_ns
        found = state_files.load(path, PoolFile)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error
    if found is None or state_files.is_of_earlier_boot(written):
        return None
    try:
        network = ip_network(found.network)
        within = all(_is_within(ip_network(one), network) for one in found.blocks)
        others = (found.gateway, found.range_start, found.range_end)
        within &= all(ip_address(one) in network for one in others if one)
    except ValueError as error:
        raise CniError(Code.DECODING_FAILURE, f"{path} is no pool", str(error)) from None
    if not within or found.pool != pool:
        details = f"something in it is of no address of {network}"
        raise CniError(Code.DECODING_FAILURE, f"{path} is no pool", details)
    return found


def held(pool: str) -> PoolFile:
    """The node's blocks, which are its own for sure. Raises CniError 11 where they are not."""
    found = read(pool)
    if found is None:
        msg = f'this node has no addresses of pool "{pool}" yet'
        details = f"cni-py agent writes {path_of(pool)} when it has some: is it running?"
        raise CniError(Code.TRY_AGAIN_LATER, msg, details)
    if found.held_until < now():
        msg = f"this node's blocks of pool \"{pool}\" may have become another's"
        details = "its lease has not been renewed in time: cni-py agent status tells why"
        raise CniError(Code.TRY_AGAIN_LATER, msg, details)
    return found


def user(pool: str, folder: str = FOLDER) -> User | None:
    """Who gives out the pool's addresses on this node; None if nobody has. Raises KernelError."""
    path = _user_path(pool, folder)
    try:
        return state_files.load(path, User)
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error


def use(pool: str, wanted: User) -> None:
    """Have a network give out the pool's addresses on this node.

    Raises CniError 7 where another does: it would give out the same ones.
    """
    if user(pool) == wanted:
        return
    with on_folder(FOLDER):
        other = user(pool)
        if other not in (None, wanted) and other is not None and given(other.folder):
            msg = f'pool "{pool}" is used by network {other.network} on this node'
            details = f"its addresses are in {other.folder}: a pool has one network on a node"
            raise CniError(Code.INVALID_CONFIG, msg, details, key="ipam.pools")
        state_files.save(_user_path(pool, FOLDER), msgspec.json.encode(wanted))


def given(folder: str) -> set[int]:
    """The addresses that have been given out, as integers, by the names of the files.

    Raises KernelError.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise kernel_error(f"list {folder}", error) from error
    found = set()
    for name in names:
        if name[:1].isalnum() and ("." in name or ":" in name):
            try:
                found.add(int(ip_address(name)))
            except ValueError:
                continue
    return found


def _user_path(pool: str, folder: str) -> str:
    return f"{folder}/{pool}{_USER_SUFFIX}"


def _is_within(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.subnet_of(other)
    return isinstance(one, IPv6Network) and isinstance(other, IPv6Network) and one.subnet_of(other)
