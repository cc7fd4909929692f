"""Figures as a person reads them, and tables of them."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from cni_py.cli.columns import Column, Section, print_section
from cni_py.cli.figures import bit_rate, byte_count, count, duration, share
from cni_py.cli.output import printable


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (byte_count(0), "0 B"),
        (byte_count(999), "999 B"),
        (byte_count(3914), "3.9 kB"),
        (byte_count(12_345_678), "12 MB"),
        (byte_count(10**18), "1000 PB"),
        (bit_rate(8_000_000), "8 Mbit/s"),
        (bit_rate(2_500_000_000), "2.5 Gbit/s"),
        (duration(0.4), "0 s"),
        (duration(59), "59 s"),
        (duration(3 * 60 + 59), "3 min"),
        (duration(90_000), "1 d"),
        (count(65_533), "65,533"),
        (count(2**64 - 2), "2^64"),
        (share(0, 13), "0%"),
        (share(1, 65_533), "<1%"),
        (share(13, 13), "100%"),
        (share(1, 0), ""),
    ],
)
def test_figures(said, text):
    assert said == text


@given(st.text())
def test_printable_text_is_on_one_line_and_has_no_controls(text):
    assert printable(text).isprintable()


_CELLS = st.text(st.characters(exclude_categories=("C", "Z")), max_size=40)


@given(st.lists(st.tuples(_CELLS, _CELLS, _CELLS), max_size=8), st.integers(30, 120))
def test_tables_are_no_wider_than_the_terminal(rows, width):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    columns = (Column("kind", yields=True), Column("name", folds=True), Column("b", folds=True))
    print_section(console, Section("names", columns, [[(one, "") for one in row] for row in rows]))
    lines = out.getvalue().splitlines()
    assert lines[0] == "NAMES"
    assert max(map(cell_len, lines)) <= width
    # What folds is all there.
    folded = "".join(lines)
    for row in rows:
        assert len(folded) >= len(row[1])


def test_right_columns_end_together():
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    rows = [[("a", ""), ("1", "")], [("b", ""), ("1000", "")]]
    print_section(console, Section("x", (Column("n"), Column("m", right=True)), rows))
    assert out.getvalue() == "X\nn     m\na     1\nb  1000\n\n"
