"""One dnsmasq a network: started with its first container, ended with the last one.

It is nobody's child, and in no unit's control group. Whoever finds it dead starts it again:
`require` in every call of the network, and `revive` in the warm server. It is told from other
processes by its arguments and its network namespace.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import time
from contextlib import contextmanager, suppress
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

from cni_py.kernel import daemons, listeners, lock, netns, processes, state_files, sysctl
from cni_py.kernel.errors import kernel_error
from cni_py.spec.addresses import parse_ip
from cni_py.spec.errors import CniError, Code, code_of

from . import asking, configuration
from . import network as kept
from .network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.daemons import Daemon

NAME = "dnsmasq"
PACKAGE = "dnsmasq-base"
CGROUP = "cni-py-dns"
_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin")
# What leads to the folders of ours.
_ABOVE = ("/", "/run")
_USERS = ("dnsmasq", "nobody")
_START_SECONDS = 10.0
_FREE_SECONDS = 2.0
_PAUSE_SECONDS = 0.02
_REMOVALS = 5
_MOST_SAID_BYTES = 1 << 16


@contextmanager
def changing() -> Iterator[None]:
    """Let nobody else start or end a server while the block runs. Raises CniError 11 after 30 s."""
    with lock.on_folder(kept.FOLDER):
        yield


def program() -> str:
    """The path of dnsmasq. Raises CniError."""
    listed = [one for one in os.environ.get("PATH", "").split(":") if one.startswith("/")]
    for folder in (*listed, *_FOLDERS):
        path = os.path.join(folder, NAME)
        if os.access(path, os.X_OK):
            return path
    raise CniError(Code.INTERNAL, "dnsmasq is not installed", f"install the package {PACKAGE}")


def running(name: str, *, anywhere: bool = False) -> Daemon | None:
    """A network's server, to be closed; None where it does not run.

    `anywhere` looks through all processes where the file does not tell.
    """
    one = Network(name=name, domain="", addresses=())
    arguments = _arguments(one)
    found = None
    with suppress(OSError, ValueError, state_files.DamagedError):
        found = daemons.find(arguments, int(state_files.content(configuration.pid_file_of(one))))
    return daemons.find(arguments) if found is None and anywhere else found


def require(network: Network) -> None:
    """Have the network's server run as the value says; who calls it is `changing`.

    One that was told something else is started anew. Raises CniError.
    """
    stored = kept.load(network.name)
    if stored is not None and stored.boot != network.boot:
        # Where /run outlives the machine's restart, what was published does not.
        retire(network.name)
    kept.make_way(network)
    with _closed(running(network.name)) as one:
        if one is not None and stored == network:
            return
    text = configuration.text_of(network, *_user())
    _end(network.name)
    path = program()
    require_free(network)
    kept.save(network)
    state_files.save(configuration.file_of(network), text.encode())
    _start(path, network)


def require_free(network: Network) -> None:
    """Raises CniError where somebody else has port 53 of one of the addresses."""
    deadline = time.monotonic() + _FREE_SECONDS
    while (taken := _taken(network)) is not None:
        # What a server that has just ended leaves to its last connections.
        if time.monotonic() > deadline:
            raise taken
        time.sleep(_PAUSE_SECONDS)


def revive() -> list[str]:
    """Start the servers of this network namespace that have died. Raises CniError.

    Returns the networks' names.
    """
    revived = []
    for name in here():
        with _closed(running(name)) as found:
            if found is not None:
                continue
        with changing():
            # Meanwhile its last container may have gone.
            stored = kept.load(name)
            if stored is not None:
                require(stored)
                revived.append(name)
    return revived


def here() -> list[str]:
    """The networks whose servers belong into this network namespace. Raises KernelError."""
    if not os.path.isdir(kept.FOLDER):
        return []
    own = (netns.cookie(), sysctl.boot_id())
    return [one.name for one in kept.networks() if (one.cookie, one.boot) == own]


def retire(name: str) -> None:
    """End a network's server, and forget all that was published. Who calls it is `changing`.

    Raises CniError.
    """
    _end(name)
    folder = kept.folder_of(name)
    for attempt in range(_REMOVALS):
        try:
            state_files.remove(folder)
            break
        except OSError as error:
            # Somebody has published something meanwhile.
            if error.errno != errno.ENOTEMPTY or attempt + 1 == _REMOVALS:
                raise kernel_error(f"remove {folder}", error) from error
    daemons.remove_cgroup(CGROUP)


def trouble(network: Network) -> str:
    """Why a server may not answer, for a person: who has its port, or what it is doing."""
    taken = _taken(network, own=False)
    if taken is not None:
        return str(taken)
    with _closed(running(network.name)) as one:
        return f"{NAME} does not run" if one is None else f"{NAME} is {one.described()}"


def _start(path: str, network: Network) -> None:
    arguments = [path, *_arguments(network)[1:]]
    msg = f"dnsmasq of network {network.name} cannot be started"
    try:
        done = processes.run(
            arguments,
            b"",
            environ={"PATH": ":".join(_FOLDERS)},
            seconds=_START_SECONDS,
            most=_MOST_SAID_BYTES,
        )
    except OSError as error:
        raise CniError(code_of(error.errno or 0), f"{msg}: {error.strerror}", path) from error
    except TimeoutExpired:
        details = f"it has not begun within {_START_SECONDS:.0f} s"
        raise CniError(Code.TRY_AGAIN_LATER, msg, details) from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise CniError(Code.INTERNAL, msg, said or f"exit status {done.returncode}")
    with _closed(running(network.name)) as one:
        if one is None:
            raise CniError(Code.INTERNAL, msg, "it has ended at once: see the system's log")
        daemons.leave_cgroup(one.pid, CGROUP)


def _end(name: str) -> None:
    # A call that was killed may have left a second one.
    while True:
        with _closed(running(name, anywhere=True)) as one:
            if one is None:
                return
            try:
                ended = one.end()
            except OSError as error:
                raise kernel_error(f"end {one.described()}", error) from error
            if not ended:
                msg = f"dnsmasq of network {name} does not end"
                details = f"{one.described()} was sent SIGKILL"
                raise CniError(Code.TRY_AGAIN_LATER, msg, details)


def _taken(network: Network, *, own: bool = True) -> CniError | None:
    """The refusal where a socket has port 53 of an address.

    Without `own` also where it has that of all addresses, and is not the network's own server's.
    """
    with _closed(None if own else running(network.name)) as server:
        for address in network.addresses:
            pid = None if server is None else server.pid
            who = listeners.holder(parse_ip(address), asking.PORT, but=pid, exactly=own)
            if who:
                msg = f"port {asking.PORT} of {address} is taken by {who}"
                return CniError(Code.INTERNAL, msg, _use_of(address, network.name))
    return None


def _use_of(address: str, name: str) -> str:
    """What port 53 of the address is for, where somebody has it."""
    for one in kept.networks():
        if one.name != name and address in one.addresses:
            return f"network {one.name} has its names there: {name} needs a gateway of its own"
    return f"network {name} needs it for its names"


def _user() -> tuple[str, str]:
    """Whom dnsmasq becomes, and the group.

    It is root in a user namespace, where that is an ordinary user: if there is no other, or /run is
    closed to others.
    """
    is_open = all(os.stat(one).st_mode & stat.S_IXOTH for one in _ABOVE)
    for name in _USERS if is_open else ():
        try:
            user = pwd.getpwnam(name)
            group = grp.getgrgid(user.pw_gid).gr_name
        except KeyError:
            continue
        if _is_mapped(user.pw_uid, "uid") and _is_mapped(user.pw_gid, "gid"):
            return name, group
    # Without a group it asks for no other, which some namespaces refuse (setgroups).
    return "root", ""


def _is_mapped(number: int, kind: str) -> bool:
    """Whether a user or group is one of this process's user namespace (user_namespaces(7))."""
    with open(f"/proc/self/{kind}_map") as file:
        ranges = [list(map(int, line.split())) for line in file]
    return any(first <= number < first + length for first, _, length in ranges)


@contextmanager
def _closed(one: Daemon | None) -> Iterator[Daemon | None]:
    try:
        yield one
    finally:
        if one is not None:
            one.close()


def _arguments(network: Network) -> list[str]:
    return [NAME, f"--conf-file={configuration.file_of(network)}"]
