"""A short flood; `make flood` is the long one, which counts what the reference does too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .flood import Counts, Options, flood

if TYPE_CHECKING:
    from fixtures.host import Host


@pytest.mark.slow
@pytest.mark.parametrize("served", ["standalone", "warm"])
def test_flood(host: Host, served: str) -> None:
    """[W-G6, W-HL3] Calls at once and SIGKILLs: no trouble for others, and nothing is left."""
    if served == "warm":
        host.serve()
    options = Options(seconds=6, containers=40, at_once=16, served=served)
    counts = flood(host, options)
    assert (dict(counts.trouble), counts.notes, counts.leaked) == ({}, [], [])
    _require_done(counts)


@pytest.mark.slow
def test_flood_of_every_kind(host: Host) -> None:
    """The same with what is routed, a child of another link, and a device."""
    host.serve()
    options = Options(seconds=6, containers=40, at_once=16, served="warm", every_kind=True)
    counts = flood(host, options)
    assert (dict(counts.trouble), counts.notes, counts.leaked) == ({}, [], [])
    _require_done(counts)


def _require_done(counts: Counts) -> None:
    """Otherwise this has tested nothing."""
    assert counts.calls["ADD"] > 20
    assert counts.calls["DEL"] > 20
    assert counts.killed
