"""Which peers are believed: what a lease says can be a mistake, out of date, or a lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .claims import Taken, is_no_hosts, is_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.addresses import IP, Network

    from .backend import Node, View

_QUOTED = 40


def vetted(view: View, backend: str) -> tuple[list[Node], dict[str, str]]:
    """The peers that can be, in their order, and why each other one (`Node.name`) cannot.

    What a peer claims must lie in the cluster's network and overlap neither the own subnet nor that
    of an older peer; its address must be one that a host can have, and lead out of the cluster's
    network: packets to it would otherwise be wrapped again and again.
    """
    believed: list[Node] = []
    refused: dict[str, str] = {}
    taken = {version: Taken() for version in (4, 6)}
    for subnet in subnets_of(view.own):
        taken[subnet.version].add(subnet, "this node's own")
    for peer in view.peers:
        problem = next(_problems(peer, view, backend, taken), "")
        if problem:
            refused.setdefault(peer.name, problem)
            continue
        for subnet in subnets_of(peer):
            taken[subnet.version].add(subnet, f"that of an older lease: {peer.name}")
        believed.append(peer)
    return believed, refused


def quoted(value: object) -> str:
    """A value that anybody may have written, short and on one line."""
    text = ascii(value)
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."


def _problems(peer: Node, view: View, backend: str, taken: dict[int, Taken]) -> Iterator[str]:
    said = peer.said
    if said.backend != backend:
        yield f"its backend is {quoted(said.backend)}, this node's is {backend!r}"
    subnets = subnets_of(peer)
    if not subnets:
        yield "it has no subnet"
    for subnet in subnets:
        version = subnet.version
        network: Network | None = view.network if version == 4 else view.network6
        if network is None:
            yield f"the cluster has no IPv{version} network"
        elif not is_part(subnet, network):
            yield f"{subnet} is no part of the cluster's network {network}"
        if whose := taken[version].by(subnet):
            yield f"{subnet} overlaps {whose}"
    if said.address is None and said.address6 is None:
        yield "it has no address"
    yield from _of_addresses(peer, view)


def _of_addresses(peer: Node, view: View) -> Iterator[str]:
    own: tuple[IP | None, ...] = (view.own.said.address, view.own.said.address6)
    for address in (peer.said.address, peer.said.address6):
        if address is None:
            continue
        if address in own:
            yield f"its address {address} is this node's own"
        if is_no_hosts(address):
            yield f"no host has the address {address}"
        networks: tuple[Network | None, ...] = (view.network, view.network6)
        if any(one is not None and address in one for one in networks):
            yield f"its address {address} is inside the cluster's network"


def subnets_of(node: Node) -> list[Network]:
    """Of each family that it has one of."""
    return [one for one in (node.subnet, node.subnet6) if one is not None]
