"""`cni-py plan`: what an ADD would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .attachment import Asked, attachment_options
from .output import console, need_root, print_json, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .planning import Plan

_KIND_CHARACTERS = 11


@click.command()
@attachment_options(netns_required=True)
def plan(asked: Asked) -> None:
    """Say what add would do: addresses, links, routes, rules, and what is in its way.

    Nothing is changed: no address is taken, nobody is asked. Of plugins that are not cni-py's
    nothing is known. Exit status 1 where something is in the way.
    """
    from .planning import plan as planned

    need_root("looking into a container")
    network = asked.found()
    found = planned(asked.runtime(), network, asked.parameters(network))
    if asked.as_json:
        print_json(found)
    else:
        out = console()
        for text, style in _lines(found):
            out.print(printable(text), style=style, markup=False)
    if not found.is_possible:
        raise click.exceptions.Exit(1)


def _lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """Each line, and how it looks."""
    yield f"{plan.network}, version {plan.version}: {plan.ifname} in {plan.netns}", "bold"
    yield f"container {plan.container}", ""
    for text in plan.conflicts:
        yield _row("CONFLICT", text), "red"
    for place, one in enumerate(plan.plugins, 1):
        yield f"{place}. {one.type}{'' if one.known else ': not known'}", "bold"
        for step in one.steps:
            yield _row(step.kind, step.text), ""
        for text in one.unknown:
            yield _row("not known", text), "yellow"
        for text in one.conflicts:
            yield _row("CONFLICT", text), "red"
    yield "Nothing is in the way." if plan.is_possible else "add would fail, or not work.", "bold"


def _row(kind: str, text: str) -> str:
    return f"   {kind:{_KIND_CHARACTERS}} {text}"
