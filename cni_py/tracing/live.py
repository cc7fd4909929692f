"""A real packet beside the prediction: what the kernel's rules did with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import probe, rule_traces

from .nft import all_rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni_py.kernel.probe import Answer
    from cni_py.kernel.rule_traces import Traced as Trace

    from .ends import End, Spaces
    from .packet import Packet
    from .report import Traced

_SECONDS = 2.0
_TRAILING_SECONDS = 0.3


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule of the host, or a chain's policy, did with the real packet."""

    where: str
    rule: str
    verdict: str


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """`answer` is answered, refused, silence or unreachable; `agrees` whether that was foretold.

    `agrees` is None where the two cannot be compared: silence of a UDP server, or what leaves the
    host.
    """

    answer: str
    text: str
    rules: tuple[Rule, ...]
    agrees: bool | None


def send(spaces: Spaces, source: End, packet: Packet, predicted: Traced) -> Live:
    """Send the packet from its source's namespace. Raises CniError, OSError."""
    assert source.space is not None
    own = None if packet.source.is_unspecified else packet.source
    ends = (packet.protocol, packet.destination, packet.dport)
    with rule_traces.tracing(packet.destination, packet.protocol, packet.dport) as traces:
        with source.space.entered():
            answer = probe.send(*ends, source=own, seconds=_SECONDS)
        seen = traces.until(time.monotonic() + _TRAILING_SECONDS)
    texts = dict(all_rules(spaces.host.objects))
    return Live(
        answer=answer.kind,
        text=answer.text,
        rules=tuple(_rules(seen, texts)),
        agrees=_agrees(answer, packet, predicted),
    )


def _rules(seen: list[Trace], texts: dict[tuple[str, str, int], str]) -> Iterable[Rule]:
    """Those that decided something, each once: a probe can be sent again."""
    found = {}
    for one in seen:
        if one.verdict == "continue" or one.kind == "return":
            continue
        chain = f"{one.family} {one.table} {one.chain}"
        if one.kind == "policy":
            found[chain, 0] = Rule(where=chain, rule="policy", verdict=one.verdict)
        else:
            text = texts.get((one.family, one.table, one.handle), "")
            where = f"{chain} handle {one.handle}"
            found[chain, one.handle] = Rule(where=where, rule=text, verdict=one.verdict)
    return found.values()


def _agrees(answer: Answer, packet: Packet, predicted: Traced) -> bool | None:
    ending = predicted.verdict.ending
    if ending in ("leaves", "uncertain"):
        return None
    if packet.protocol == "udp" and answer.kind == "silence" and ending == "arrives":
        return None
    expected = {
        "arrives": ("answered",),
        "refused": ("refused",),
        "dropped": ("silence", "unreachable"),
        "rejected": ("refused", "unreachable"),
        "stuck": ("silence", "unreachable"),
    }
    return answer.kind in expected[ending]
