"""The backend that a network asks for, over the interface that was chosen, and its words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cni_py.kernel import addresses, links
from cni_py.kernel.netlink import Netlink
from cni_py.spec.errors import CniError, Code

from . import backends, underlay
from .flannel import NodeLease, Subnets
from .underlay import Chosen

if TYPE_CHECKING:
    from .agent_settings import Interfaces
    from .backend import Announcement, Backend
    from .flannel_network import Network


@dataclass(frozen=True, slots=True)
class Choice:
    """The interface to other nodes, and in words what made it the one."""

    chosen: Chosen
    link: str
    why: str


def require_usable(network: Network) -> None:
    """Raises CniError 7 where the network asks for a backend, or keys of it, that there are not."""
    make(network, Chosen()).close()


def make(network: Network, chosen: Chosen) -> Backend:
    """The backend, in the namespace of this process. Raises CniError 7, KernelError."""
    found = json.loads(network.backend or b"{}")
    assert isinstance(found, dict)
    return backends.make(found, chosen, versions(network))


def versions(network: Network) -> frozenset[int]:
    """The IP versions that the network has."""
    return frozenset(version for version, one in ((4, network.v4), (6, network.v6)) if one)


def choose(wanted: Interfaces) -> Choice:
    """The interface to other nodes as it is now. Raises CniError 50 where there is none."""
    with Netlink() as netlink:
        named = list(wanted.named)
        if wanted.pattern:
            named += _fitting(netlink, wanted.pattern)
        tried = [Chosen(one, "", wanted.public, wanted.public6) for one in named]
        if not wanted.named and not wanted.pattern:
            tried = [Chosen("", wanted.towards, wanted.public, wanted.public6)]
        problems = []
        for chosen in tried:
            try:
                found = underlay.find(netlink, chosen)
            except CniError as error:
                problems.append(error)
            else:
                return Choice(chosen, found.link, found.why)
    if problems:
        raise problems[0]
    msg = f"no interface's name or address fits {wanted.pattern!r}"
    raise CniError(Code.PLUGIN_NOT_AVAILABLE, msg)


def _fitting(netlink: Netlink, pattern: str) -> list[str]:
    """The names of links whose name or address the pattern is found in, as in flannel."""
    form = re.compile(pattern)
    every = addresses.dump_all(netlink)
    return [
        link.name
        for link in links.dump(netlink)
        if link.name != "lo"
        and (
            form.search(link.name)
            or any(form.search(str(one.address.ip)) for one in every.get(link.ifindex, []))
        )
    ]


def lease_of(said: Announcement, subnets: Subnets) -> NodeLease:
    """What a backend announces, as a lease."""
    data, data6 = (
        b"" if one is None else json.dumps(one).encode() for one in (said.data, said.data6)
    )
    return NodeLease(subnets, said.address, said.address6, said.backend, data, data6)
