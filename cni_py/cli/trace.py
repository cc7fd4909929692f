"""`cni-py trace`: what would stop a packet on its way, and what does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cni_py.spec.errors import CniError

from .group import Unreadable
from .output import json_option, need_root, print_json, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_py.spec.addresses import IP
    from cni_py.tracing.ends import End, Spaces
    from cni_py.tracing.live import Live
    from cni_py.tracing.packet import Packet
    from cni_py.tracing.report import Traced

_MARKS = {"pass": "  ", "stop": "X ", "uncertain": "? ", "note": "- "}
_ANYWHERE = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - an address that nobody has


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST[:PORT]")
@click.option(
    "--proto",
    type=click.Choice(["tcp", "udp", "icmp", "sctp"]),
    help="By default tcp where there is a port, else icmp: an echo request.",
)
@click.option("-6", "six", is_flag=True, help="By IPv6 where both ends have both.")
@click.option("--live", is_flag=True, help="Send a real packet too, and show what became of it.")
@json_option
def trace(
    source: str,
    destination: str,
    proto: str | None,
    six: bool,  # noqa: FBT001 - click passes options by name
    live: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Follow a packet from SRC to DST through routes, bridges and rules, to what stops it.

    SRC and DST are a container's id (or a beginning of it), `host`, or an address; an IPv6 address
    with a port stands in brackets. Nothing is changed. With --live a real packet is sent from SRC's
    namespace, and a table of nftables of our own marks it meanwhile.

    Exit status 1 where the packet does not arrive, or it cannot be told.
    """
    from cni_py.tracing.ends import Spaces
    from cni_py.tracing.walk import Walk

    need_root("looking into containers")
    with Spaces() as spaces:
        try:
            src, dst = spaces.source(source), spaces.destination(destination)
        except CniError as error:
            raise Unreadable(str(error)) from None
        packet = _packet(spaces, src, dst, proto, six=six)
        if live and src.space is None:
            raise Unreadable(f"--live sends from this host: {src.name} is not on it")
        traced = Walk(spaces).trace(src, dst, packet)
        seen = None
        if live:
            from cni_py.tracing.live import send

            seen = send(spaces, src, packet, traced)
    if as_json:
        print_json({"trace": traced, "live": seen} if live else {"trace": traced})
    else:
        _print(traced)
        if seen is not None:
            _print_live(seen, traced)
    sys.exit(0 if traced.verdict.ending in ("arrives", "leaves") else 1)


def _packet(spaces: Spaces, src: End, dst: End, proto: str | None, *, six: bool) -> Packet:
    """The first packet. Raises Unreadable for ends that do not fit."""
    from ipaddress import ip_address

    from cni_py.tracing.packet import EPHEMERAL_PORT, Packet

    protocol = proto or ("tcp" if dst.port else "icmp")
    if protocol != "icmp" and not dst.port:
        raise Unreadable(f"{protocol} goes to a port: write {dst.name}:PORT")
    here, there = ([one.version for one in end.addresses] for end in (src, dst))
    both = [version for version in (4, 6) if version in here and version in there]
    if not both:
        raise Unreadable(
            f"{src.name} has {_families(here)} and {dst.name} {_families(there)}: no packet goes "
            "from one to the other"
        )
    version = both[-1] if six else both[0]
    destination = _address_of(spaces, src, dst, version)
    if version == 6 and protocol == "icmp":
        protocol = "icmpv6"
    own: Any = src.addresses[0] if src.space is None else ip_address(_ANYWHERE[version])
    sport = EPHEMERAL_PORT if dst.port else 0
    return Packet(own, destination, protocol, sport=sport, dport=dst.port)


def _address_of(spaces: Spaces, src: End, dst: End, version: int) -> IP:
    """The destination's address; of the host that which is on the container's network."""
    own = [one for one in dst.addresses if one.version == version]
    if dst.space is not spaces.host or len(own) == 1:
        return own[0]
    if src.space is spaces.host:
        return own[-1]
    nets = [one.address.network for each in spaces.host.addresses.values() for one in each]
    for address in own:
        network = next((one for one in nets if address in one and address.version == version), None)
        if network is not None and any(one in network for one in src.addresses):
            return address
    return own[0]


def _families(versions: Iterable[int]) -> str:
    return " and ".join(f"IPv{one}" for one in sorted(set(versions))) or "no address"


def _say(line: str) -> None:
    # Comments of rules are others' texts.
    click.echo(printable(line))


def _print(traced: Traced) -> None:
    _say(f"{traced.source} -> {traced.destination}: {traced.packet}")
    place = ""
    for step in traced.steps:
        if step.place != place:
            place = step.place
            _say(f"{place}")
        rule = f": {step.rule}" if step.rule else ""
        where = f" [{step.where}{rule}]" if step.where else ""
        _say(f"  {_MARKS[step.effect]}{step.what:<12} {step.text}{where}")
    verdict = traced.verdict
    _say(f"{verdict.ending}: {verdict.text}")
    if verdict.rule:
        _say(f"  rule    {verdict.rule}")
    if verdict.remedy:
        _say(f"  remedy  {verdict.remedy}")
    for doubt in traced.doubts:
        _say(f"  doubt   {doubt}")


def _print_live(seen: Live, traced: Traced) -> None:
    _say(f"live: {seen.answer} ({seen.text})")
    for one in seen.rules:
        _say(f"  {one.verdict:<12} {one.where}: {one.rule}")
    if seen.agrees is None:
        _say("  this neither bears the prediction out nor refutes it")
    elif seen.agrees:
        _say(f"  as foretold: {traced.verdict.ending}")
    else:
        _say(f"  NOT as foretold: {traced.verdict.ending}; please report it")
