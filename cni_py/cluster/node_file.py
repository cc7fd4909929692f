"""What the agent tells the plugins of this node, in a file: nothing of an ADD asks a store.

The agent replaces the file whenever something in it changes. While it runs it holds a lock on a
file beside it, which the kernel gives back whatever it dies of.
"""

from __future__ import annotations

import fcntl
import os
from typing import Literal

import msgspec

from cni_py.kernel import state_files
from cni_py.kernel.boot_clock import now
from cni_py.kernel.errors import kernel_error
from cni_py.kernel.lock import try_lock
from cni_py.spec.errors import CniError, Code

FOLDER = "/run/cni-py/cluster"
DEFAULT_CLUSTER = "default"

Holding = Literal["held", "unsure", "lost", "released"]


class NodeFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A node as its agent last saw it. Networks and subnets are texts, `""` where there is none."""

    cluster: str
    backend: str = ""
    ipv4_network: str = ""
    ipv4_subnet: str = ""
    ipv6_network: str = ""
    ipv6_subnet: str = ""
    public_ip: str = ""
    public_ipv6: str = ""
    mtu: int = 0
    """The bytes that a container's packet may have; 0 where that is not known yet."""
    lease: Holding = "lost"
    lease_number: int = 0
    held_until: float = 0.0
    """Seconds of CLOCK_BOOTTIME until which the store has the lease for sure."""
    former: tuple[str, ...] = ()
    """Subnets that this node has lost since it started: containers may have them yet."""
    code: int = 0
    """A CNI error code for STATUS, with `msg` and `details`; 0 if nothing is wrong."""
    msg: str = ""
    details: str = ""


def path_of(cluster: str) -> str:
    """Where the agent of a cluster's network writes, unless it is told otherwise."""
    return f"{FOLDER}/{cluster}.json"


def read(path: str) -> NodeFile | None:
    """The file; None if there is none, or it was damaged. Raises KernelError."""
    try:
        return state_files.load(path, NodeFile)
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error


def write(path: str, told: NodeFile) -> None:
    """Replace the file in one step. Raises KernelError."""
    state_files.save(path, msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")


def problem(path: str) -> CniError | None:
    """What STATUS has to say of the node: 50 if no container should be added, 51 if some peers are
    not reached or may not be. None if nothing is wrong. Raises KernelError.
    """
    told = read(path)
    if told is None:
        msg = "this node has no subnet of the cluster's network yet"
        details = f"cni-py agent writes {path} when it has one: is it running?"
        return CniError(Code.PLUGIN_NOT_AVAILABLE, msg, details)
    return problem_of(told, path)


def problem_of(told: NodeFile, path: str) -> CniError | None:
    """The same of what has been read."""
    if told.code:
        return CniError(told.code, told.msg, told.details)
    if told.lease == "held" and told.held_until < now():
        msg = "this node's lease has not been renewed in time"
        return CniError(Code.PLUGIN_NOT_AVAILABLE, msg, _running(path))
    if not is_running(path):
        msg = "cni-py agent is not running: changes of other nodes are not followed"
        return CniError(Code.LIMITED_CONNECTIVITY, msg, "what is there goes on working meanwhile")
    return None


def _running(path: str) -> str:
    return "cni-py agent status tells why" if is_running(path) else "cni-py agent is not running"


def take(path: str) -> int | None:
    """The lock that says that an agent runs, as a descriptor to be kept open; None if one does.

    Raises KernelError.
    """
    lock = _lock_of(path)
    try:
        os.makedirs(os.path.dirname(lock), 0o700, exist_ok=True)
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise kernel_error(f"open {lock}", error) from error
    if try_lock(fd):
        return fd
    os.close(fd)
    return None


def is_running(path: str) -> bool:
    """Whether an agent holds the lock. It is tried for, shared, and given back at once."""
    try:
        fd = os.open(_lock_of(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _lock_of(path: str) -> str:
    return f"{path}.lock"
