"""What containers are called on networks that have the plugin dns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py.kernel.state_files import DamagedError
from cni_py.names import networks, publishing
from cni_py.plugins import dns
from cni_py.spec.attachment import is_key
from cni_py.spec.errors import CniError

from .model import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.names import Network


class Named(NamedTuple):
    """A container's names on its network, without the domain, and the file that has them."""

    record: dns.Record
    path: str
    names: tuple[str, ...]


def named(problems: list[Problem]) -> Iterator[Named]:
    """All of this host; what is damaged is among the problems."""
    try:
        found = [(one, source) for one in networks() for source in publishing.sources(one)]
    except CniError as error:
        problems.append(Problem(subject="names", text=str(error)))
        return
    for network, source in found:
        if not is_key(source):
            continue
        path = f"{network.hosts}/{source}"
        try:
            told = publishing.published(network, source)
            if told is not None:
                record = msgspec.json.decode(told[0], type=dns.Record)
                yield Named(record, path, _short(network, told[1].values()))
        except (DamagedError, CniError, msgspec.DecodeError) as error:
            problems.append(Problem(subject=path, text=f"its names are not known: {error}"))


def _short(network: Network, listed: Iterable[list[str]]) -> tuple[str, ...]:
    every = dict.fromkeys(name for names in listed for name in names)
    return tuple(one for one in every if not one.endswith(f".{network.domain}"))
