"""docs/troubleshooting.md has the messages that the source has, and no others."""

from __future__ import annotations

import re

from fixtures.messages import OTHER, ROOT, VALUE, messages

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"^\| `([^`]+)` \| [0-9, ]* ?\|", TEXT, re.MULTILINE)
# What the system says, and what the launcher in C says.
SYSTEM = {one for one in QUOTED if re.fullmatch(r"…: [A-Z][a-z -]+", one)}
LAUNCHER = (ROOT / "plugins" / "launcher.c").read_text()
# Codes whose messages somebody can do something about; "" is one that the source does not tell.
NEEDED = {
    OTHER,
    "INVALID_ENVIRONMENT",
    "IO_FAILURE",
    "INVALID_CONFIG",
    "INVALID_NETNS",
    "TRY_AGAIN_LATER",
    "PLUGIN_NOT_AVAILABLE",
    "LIMITED_CONNECTIVITY",
}
# Messages that say all there is to say.
PLAIN: set[str] = set()
# Those of which no more than punctuation is constant pass on what somebody else has said.
SOURCE = {
    one
    for one in messages()
    if re.search("[a-z]{2}", one.template) and one.template == one.template.rstrip()
}
TEMPLATES = {one.template for one in SOURCE} | {"… …", '… "…" …', "… … not in network …"}


def test_every_message_is_explained() -> None:
    assert {one.template for one in SOURCE if one.code in NEEDED} - set(QUOTED) - PLAIN == set()


def test_quoted_messages_exist() -> None:
    elsewhere = SYSTEM | {one for one in QUOTED if f'"{one}"' in LAUNCHER}
    assert set(QUOTED) - TEMPLATES - elsewhere == set()


def test_each_once() -> None:
    twice = {one for one in QUOTED if QUOTED.count(one) > 1}
    assert twice == set()


def test_values_are_left_out() -> None:
    """A template is as the source has it: the value of a key or path is `…`."""
    assert f'failed to find plugin "{VALUE}" in path [{VALUE}]' in TEMPLATES
