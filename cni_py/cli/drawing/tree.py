"""The picture as a tree on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.cli.overview import STYLES

from .folding import groups
from .picture import title

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from .folding import Group
    from .picture import Box, Leg, Picture


def tree(picture: Picture, most: int) -> Tree:
    """The ways out, then each hub with its containers and their interfaces."""
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text(picture.host, style="bold"), guide_style="dim")
    for uplink in picture.uplinks:
        state = "" if uplink.up else "down"
        parts = (uplink.name, "bold cyan"), ("uplink", "dim"), (", ".join(uplink.addresses), "")
        root.add(_joined(*parts, (state, "yellow")))
    for group in groups(picture, most):
        _add(root, group)
    return root


def _joined(*parts: tuple[str, str]) -> Text:
    from rich.text import Text

    return Text("  ").join(Text(text, style=style) for text, style in parts if text)


def _add(root: Tree, group: Group) -> None:
    hub = group.hub
    way = "masqueraded" if hub.masqueraded else ""
    head = _joined(
        (hub.name, "bold blue"),
        (title(hub), "dim"),
        (", ".join(hub.addresses), ""),
        ("" if hub.up else "down", "yellow"),
        (way, "dim"),
    )
    branch = root.add(head)
    for gauge in hub.gauges:
        branch.add(_joined((gauge.subnet, ""), (gauge.text, "dim")))
    for box in group.boxes:
        first, *others = box.legs
        twig = branch.add(_leg(box, first))
        for problem in first.problems:
            twig.add(_joined((f"! {problem}", "red")))
        for leg in others:
            other = twig.add(_joined((f"also {leg.ifname} on {leg.network}", ""), *_reached(leg)))
            for problem in leg.problems:
                other.add(_joined((f"! {problem}", "red")))
    if group.folded:
        branch.add(_joined((group.folded, "dim italic")))


def _leg(box: Box, leg: Leg) -> Text:
    state = "" if leg.state == "up" else leg.state
    return _joined(
        (box.short, "bold"),
        (leg.ifname, ""),
        *_reached(leg),
        (", ".join(box.ports), "green"),
        (state, STYLES.get(leg.state, "")),
    )


def _reached(leg: Leg) -> tuple[tuple[str, str], ...]:
    return (", ".join(leg.addresses), "cyan"), (leg.port or leg.kind, "dim")
