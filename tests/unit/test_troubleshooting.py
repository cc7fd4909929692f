"""docs/troubleshooting.md has the messages that the source has, and no others."""

from __future__ import annotations

import re

from fixtures.messages import ROOT, VALUE, messages

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"^\| `([^`]+)` \| [0-9, ]+ \|", TEXT, re.MULTILINE)
# What the system says, and what the launcher in C says.
SYSTEM = {one for one in QUOTED if re.fullmatch(r"…: [A-Z][a-z -]+", one)}
LAUNCHER = (ROOT / "plugins" / "launcher.c").read_text()
# Messages of which no more is constant than punctuation: they pass on what somebody else has said.
SOURCE = {one.template for one in messages() if re.search("[a-z]{2}", one.template)}
SOURCE = {one for one in SOURCE if one == one.rstrip()} | {"… …", '… "…" …', "… … not in network …"}


def test_every_message_is_explained() -> None:
    assert SOURCE - set(QUOTED) == set()


def test_quoted_messages_exist() -> None:
    elsewhere = SYSTEM | {one for one in QUOTED if f'"{one}"' in LAUNCHER}
    assert set(QUOTED) - SOURCE - elsewhere == set()


def test_each_once() -> None:
    twice = {one for one in QUOTED if QUOTED.count(one) > 1}
    assert twice == set()


def test_values_are_left_out() -> None:
    """A template is as the source has it: the value of a key or path is `…`."""
    assert f'failed to find plugin "{VALUE}" in path [{VALUE}]' in SOURCE
