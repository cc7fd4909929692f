"""Large hosts: of a hub's containers only the first are drawn, the others are told by number."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .picture import Box, Hub, Picture


class Group(NamedTuple):
    """A hub with the containers to draw, and what the others are in words (`""` for none)."""

    hub: Hub
    boxes: list[Box]
    folded: str


def groups(picture: Picture, most: int) -> Iterator[Group]:
    """Each hub with `most` of its containers at most; 0 draws all."""
    by_hub: dict[str, list[Box]] = {one.id: [] for one in picture.hubs}
    for box in picture.boxes:
        by_hub[box.hub].append(box)
    for hub in picture.hubs:
        boxes = by_hub[hub.id]
        # One that is left over is drawn: to say so takes as much room.
        shown = boxes[:most] if most and len(boxes) > most + 1 else boxes
        yield Group(hub, shown, _words(boxes[len(shown) :]))


def _words(boxes: list[Box]) -> str:
    if not boxes:
        return ""
    states: dict[str, int] = {}
    for one in boxes:
        states[one.state] = states.get(one.state, 0) + 1
    listed = ", ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
    return f"{len(boxes):,} more containers: {listed}"
