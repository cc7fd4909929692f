"""What a trace says: the steps of the packet, and how it ends."""

from __future__ import annotations

from typing import Literal

import msgspec

# arrives: somebody gets it and can answer. refused: it arrives, and nobody listens. leaves: it goes
# out of the host, where this cannot look. dropped, rejected: by a rule. stuck: no route, no
# neighbour, a link that is down. uncertain: it would arrive or leave, but for what is not known.
Ending = Literal["arrives", "refused", "leaves", "dropped", "rejected", "stuck", "uncertain"]
GOOD: frozenset[str] = frozenset({"arrives", "leaves"})


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step: `place` is `host` or a container's id, `what` the part of the kernel.

    `effect` is pass, stop, uncertain or note; `rule` and `where` are a rule's text, and its chain.
    """

    place: str
    what: str
    text: str
    effect: str = "pass"
    where: str = ""
    rule: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How it ends, what decides that (a rule, a route, a link), and what would help."""

    ending: Ending
    text: str
    where: str = ""
    rule: str = ""
    remedy: str = ""


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """A whole trace. `doubts` are what could not be read or understood."""

    source: str
    destination: str
    packet: str
    steps: tuple[Step, ...]
    verdict: Verdict
    doubts: tuple[str, ...] = ()
