"""A node's lease, as the plugins of the node read it: the agent's file, or flannel's.

The agent's is JSON (`node_file`), flanneld's is `subnet.env`. Either is written by somebody else:
what makes no sense is refused in one line.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cni_py.kernel import state_files
from cni_py.kernel.errors import kernel_error
from cni_py.spec.addresses import parse_cidr
from cni_py.spec.errors import CniError, Code

from . import node_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni_py.spec.addresses import Cidr

FLANNEL_FILE = "/run/flannel/subnet.env"

# Both files have a few hundred bytes.
_MOST_BYTES = 1 << 16
_MOST_MTU = 65535
_WRITER = {True: "cni-py agent", False: "flanneld"}


class Lease(NamedTuple):
    """What a node has of the cluster's network: IPv4 before IPv6, each subnet within a network.

    `masquerades` says that the file's writer masquerades what leaves the cluster. `mtu` is 0 where
    it is not known.
    """

    networks: tuple[Cidr, ...]
    subnets: tuple[Cidr, ...]
    mtu: int
    masquerades: bool


def read(path: str) -> Lease:
    """The lease, which the node holds.

    Raises CniError 11 without one, 6 for what makes no sense.
    """
    data = _content(path)
    if _is_json(data):
        told = node_file.read(path)
        if told is None:
            raise _missing(path, is_ours=True)
        problem = node_file.problem_of(told, path)
        if problem is not None and problem.code != Code.LIMITED_CONNECTIVITY:
            raise CniError(Code.TRY_AGAIN_LATER, problem.msg, problem.details)
        networks = told.ipv4_network, told.ipv6_network
        subnets = told.ipv4_subnet, told.ipv6_subnet
        return _lease(path, networks, subnets, told.mtu, masquerades=False)
    return _flannels(path, data)


def problem(path: str) -> CniError | None:
    """What STATUS has to say: 50 without a lease, 51 where peers are not reached; or None."""
    try:
        is_json = _is_json(_content(path))
        read(path)
    except CniError as error:
        return CniError(Code.PLUGIN_NOT_AVAILABLE, error.msg, error.details)
    return node_file.problem(path) if is_json else None


def _content(path: str) -> bytes:
    try:
        written = os.lstat(path).st_mtime_ns
        data = state_files.content(path)
    except FileNotFoundError:
        raise _missing(path, is_ours=path.endswith(".json")) from None
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error
    except state_files.DamagedError as error:
        raise _nonsense(path, str(error)) from None
    if len(data) > _MOST_BYTES:
        raise _nonsense(path, f"it has more than {_MOST_BYTES} bytes")
    if state_files.is_of_earlier_boot(written):
        who = _WRITER[_is_json(data)]
        msg = f"{path} is older than this boot: {who} has not written it since"
        raise CniError(Code.TRY_AGAIN_LATER, msg, f"is {who} running?")
    return data


def _is_json(data: bytes) -> bool:
    return data.lstrip()[:1] == b"{"


def _missing(path: str, *, is_ours: bool) -> CniError:
    msg = "this node has no subnet of the cluster's network yet"
    details = f"{_WRITER[is_ours]} writes {path} when it has one: is it running?"
    return CniError(Code.TRY_AGAIN_LATER, msg, details)


def _nonsense(path: str, why: str) -> CniError:
    return CniError(Code.DECODING_FAILURE, f"{path} is no node's lease", why)


def _flannels(path: str, data: bytes) -> Lease:
    """The lease of a `subnet.env`, whose lists are separated by commas."""
    try:
        lines = data.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise _nonsense(path, "it is no text") from None
    pairs = (line.strip().partition("=") for line in lines)
    found = {key: value.strip() for key, _, value in pairs if key.startswith("FLANNEL_")}
    networks = _listed(found, "NETWORK")
    subnets = _listed(found, "SUBNET")
    text = found.get("FLANNEL_MTU", "0")
    mtu = int(text) if text.isdecimal() and len(text) <= len(str(_MOST_MTU)) else -1
    masquerades = found.get("FLANNEL_IPMASQ", "false")
    if masquerades not in ("true", "false"):
        raise _nonsense(path, f"FLANNEL_IPMASQ is {masquerades[:20]!r}")
    return _lease(path, networks, subnets, mtu, masquerades=masquerades == "true")


def _listed(found: Mapping[str, str], name: str) -> list[str]:
    both = found.get(f"FLANNEL_{name}", ""), found.get(f"FLANNEL_IPV6_{name}", "")
    return [one.strip() for text in both for one in text.split(",")]


def _lease(
    path: str, networks: Iterable[str], subnets: Iterable[str], mtu: int, *, masquerades: bool
) -> Lease:
    try:
        whole = tuple(parse_cidr(one) for one in networks if one)
        own = tuple(parse_cidr(one) for one in subnets if one)
    except ValueError as error:
        raise _nonsense(path, str(error)) from None
    if not own:
        raise _nonsense(path, "it has no subnet")
    if len({one.version for one in own}) < len(own):
        raise _nonsense(path, "it has several subnets of one IP version")
    for one in own:
        if not any(_is_within(one, other) for other in whole):
            raise _nonsense(path, f"subnet {one.network} is in no network of the cluster")
    if not 0 <= mtu <= _MOST_MTU:
        raise _nonsense(path, f"the MTU is none from 0 to {_MOST_MTU}")
    return Lease(whole, own, mtu, masquerades)


def _is_within(one: Cidr, other: Cidr) -> bool:
    network = one.network.network_address
    return network in other.network and one.network.prefixlen >= other.network.prefixlen
