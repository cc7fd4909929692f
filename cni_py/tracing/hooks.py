"""All chains of a hook, as the kernel runs a packet through them (nf_hook_slow, nf_nat_inet_fn)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .packet import Outcome

if TYPE_CHECKING:
    from .packet import Event, Packet
    from .space import Space


def through(space: Space, hook: str, packet: Packet) -> Outcome:
    """What the base chains of a hook make of an IP packet, in the order of their priorities.

    An accept ends its own chain alone. Of NAT chains the first that translates is the last one that
    is asked; an answer asks none, nor does what has looped back to its own host.
    """
    events: list[Event] = []
    translated = False
    for chain in space.chains(hook, packet.family):
        is_known = packet.state != "new" or (hook == "prerouting" and packet.iif == "lo")
        if chain.type == "nat" and (translated or is_known):
            continue
        outcome = space.evaluate(chain, packet)
        events += outcome.events
        if chain.type == "nat":
            flags = (packet.dnat, packet.snat)
            translated = flags != (outcome.packet.dnat, outcome.packet.snat)
        packet = outcome.packet
        if not outcome.passes:
            return Outcome(outcome.verdict, packet, tuple(events))
    return Outcome("accept", packet, tuple(events))


def through_bridge(space: Space, hook: str, packet: Packet) -> Outcome:
    """The same for a frame, by the chains of nftables' family bridge."""
    events: list[Event] = []
    for chain in space.ruleset.bridge_chains(hook):
        outcome = space.ruleset.evaluate(chain, packet)
        events += outcome.events
        if not outcome.passes:
            return Outcome(outcome.verdict, packet, tuple(events))
    return Outcome("accept", packet, tuple(events))
