"""Texts of others: what of them UTF-8 has."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cni_py.spec.texts import encodable

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXTS, below, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_json_takes_every_value(value):
    msgspec.json.encode(encodable(value))


@given(VALUES)
def test_what_utf_8_has_stays(value):
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        return
    assert encodable(value) == value


def test_a_byte_that_is_not_utf_8_is_written_out():
    assert encodable({"b\udcffd": ["\udcff"]}) == {"b\\udcffd": ["\\udcff"]}
