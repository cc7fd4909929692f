"""The picture as one HTML page that needs nothing else, and asks for nothing.

Names come from others, so that none is markup: they are escaped in the tables, data in a JSON block
for the script, which makes elements of texts only. The page's own policy allows the one style and
the one script that are in it, by their hashes, and no connection at all.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.cli.overview import STYLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .picture import Box, Hub, Leg, Picture

# What could end the block, or begin a comment in it.
_IN_JSON = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def page(picture: Picture) -> str:
    """The whole document."""
    style, script = _part("page.css"), _part("page.js")
    data = msgspec.json.encode(picture).decode()
    for character, written in _IN_JSON.items():
        data = data.replace(character, written)
    tables = list(_tables(picture))
    return Template(_part("page.html")).substitute(
        host=escape(picture.host),
        taken=escape(picture.taken),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=data,
        tabs="\n".join(_tabs(tables)),
        tables="\n".join(map(_markup, tables)),
    )


def _part(name: str) -> str:
    return (files(__package__) / "parts" / name).read_text()


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


class _Table(NamedTuple):
    """A table of a view of its own. The first `words` columns are words, others are mono-spaced.

    Each row comes with the node that it is about, `""` for none.
    """

    name: str
    head: tuple[str, ...]
    rows: list[tuple[str, tuple[str, ...]]]
    words: int


def _tabs(tables: Iterable[_Table]) -> Iterator[str]:
    yield '<a href="#map">Map</a>'
    for one in tables:
        bad = ' class="bad"' if one.name == "problems" and one.rows else ""
        yield f'<a href="#{one.name}"{bad}>{one.name.capitalize()} <b>{len(one.rows):,}</b></a>'


def _tables(picture: Picture) -> Iterator[_Table]:
    hubs = {one.id: one for one in picture.hubs}
    head: tuple[str, ...] = ("container", "state", "network", "interface", "addresses")
    head += ("host end", "on", "ports", "namespace")
    rows = [(box.id, _row(box, leg, hubs)) for box in picture.boxes for leg in box.legs]
    yield _Table("containers", head, rows, 2)
    head = ("port", "container", "leads to")
    rows = [
        (box.id, (port, box.container, _first(box))) for box in picture.boxes for port in box.ports
    ]
    yield _Table("ports", head, rows, 0)
    head = ("bridge or parent", "kind", "networks", "range", "given")
    rows = [
        (hub.id, (hub.name, hub.kind, ", ".join(hub.networks), gauge.subnet, gauge.text))
        for hub in picture.hubs
        for gauge in hub.gauges
    ]
    yield _Table("addresses", head, rows, 3)
    ids = {box.container: box.id for box in picture.boxes}
    rows = [(ids.get(subject, ""), (subject, text)) for subject, text in picture.problems]
    yield _Table("problems", ("about", "what does not fit"), rows, 2)


def _marked(text: str) -> str:
    """A word of the tables; a state has its colour."""
    return f'<span class="badge {text}">{text}</span>' if text in STYLES else text


def _row(box: Box, leg: Leg, hubs: Mapping[str, Hub]) -> tuple[str, ...]:
    about = (box.container, box.state, leg.network, leg.ifname, "\n".join(leg.addresses))
    end = leg.port or leg.kind
    return (*about, end, hubs[leg.hub].name, "\n".join(box.ports), box.namespace)


def _first(box: Box) -> str:
    return "\n".join(address.partition("/")[0] for address in box.legs[0].addresses)


def _markup(one: _Table) -> str:
    title = one.name.capitalize()
    begin = f'<section class="table view" id="{one.name}" aria-label="{title}"><h2>{title}</h2>'
    if not one.rows:
        return f'{begin}<p class="none">None.</p></section>'
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in one.head)
    lines = [begin, f"<table><thead><tr>{head}</tr></thead><tbody>"]
    for node, texts in one.rows:
        about = f' data-node="{escape(node)}"' if node else ""
        cells = [escape(text) for text in texts]
        made = [f"<td>{_marked(text)}</td>" for text in cells[: one.words]]
        made += [f'<td class="mono">{text}</td>' for text in cells[one.words :]]
        lines.append(f"<tr{about}>{''.join(made)}</tr>")
    return "\n".join((*lines, "</tbody></table></section>"))
