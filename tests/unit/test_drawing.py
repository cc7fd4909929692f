"""The formats of `cni-py graph`, drawn from inventories that are made up."""

from __future__ import annotations

import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_py.cli.drawing.dot import dot
from cni_py.cli.drawing.folding import groups
from cni_py.cli.drawing.layout import CELL, layout
from cni_py.cli.drawing.mermaid import mermaid
from cni_py.cli.drawing.page import page
from cni_py.cli.drawing.picture import picture
from cni_py.cli.drawing.svg import svg
from fixtures.pictures import HOSTILE, attached, hostile, inventory, many

_SVG = "{http://www.w3.org/2000/svg}"


def drawn(made):
    return picture(made, "host", "now")


def test_what_has_a_problem_comes_first_and_names_are_in_order():
    boxes = drawn(many(12)).boxes
    assert [one.short[9:] for one in boxes[:4]] == ["11", "0", "1", "2"]
    assert boxes[-1].short == "container10"


def test_container_on_two_networks_is_one_box():
    made = inventory([attached("a", "x", "br-x"), attached("a", "y", "br-y", 1)])
    (box,) = drawn(made).boxes
    assert [one.network for one in box.legs] == ["x", "y"]
    assert box.ports == ("8080→80/tcp",)


def test_folding_tells_how_many_are_not_drawn():
    made = drawn(many(100))
    (group,) = groups(made, 10)
    assert (len(group.boxes), group.folded) == (10, "90 more containers: 90 up")
    (whole,) = groups(made, 0)
    assert (len(whole.boxes), whole.folded) == (100, "")
    (one_more,) = groups(made, 99)
    assert (len(one_more.boxes), one_more.folded) == (100, "")


_NAMES = st.text(min_size=1, max_size=90)


@given(st.lists(st.tuples(_NAMES, _NAMES, st.sampled_from(["br0", "br1"])), min_size=1, max_size=9))
def test_texts_of_the_layout_meet_nothing(names):
    """Neither one another, nor another frame's border, nor the edge, whatever the names are."""
    made = [attached(*one, number=index) for index, one in enumerate(names)]
    placed = layout(drawn(inventory(made)), 4)
    boxes = [(one.x, one.y - 11, one.x + one.width, one.y + 3) for one in placed.texts]
    for index, one in enumerate(boxes):
        assert one[0] >= 0
        assert one[2] <= placed.width
        assert one[3] <= placed.height
        for other in boxes[index + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0]
            assert apart or one[3] <= other[1] or other[3] <= one[1], (one, other)
    frames = [one for one in placed.frames if one.full is None]
    for index, one in enumerate(frames):
        for other in frames[index + 1 :]:
            apart = one.x + one.width <= other.x or other.x + other.width <= one.x
            assert apart or one.y + one.height <= other.y or other.y + other.height <= one.y
    for text in placed.texts:
        assert text.width >= CELL


def test_svg_is_sound_and_has_the_names_as_texts():
    root = ElementTree.fromstring(svg(drawn(hostile()), 0))
    texts = "\n".join("".join(one.itertext()) for one in root.iter(f"{_SVG}text"))
    for name in HOSTILE[:4]:
        assert name in texts, name
    tags = {one.tag.removeprefix(_SVG) for one in root.iter()}
    assert tags == {"svg", "style", "rect", "path", "text"}


def test_svg_of_a_large_host_folds():
    text = svg(drawn(many(1000)), 40)
    assert "960 more containers: 960 up" in text
    assert len(text) < 60_000


def test_mermaid_has_no_markup_of_names():
    text = mermaid(drawn(hostile()), 0)
    node, edge = r'n\d+\["[^"<>&;]*"\]:::\w+', r"n\d+ (---|-\.->|-\.-)(\|[^|]*\|)? ?n\d+.*"
    plain = re.compile(rf"flowchart LR|  ({node}|{edge}|classDef .*)")
    for line in text.splitlines():
        # What is left without numbers of characters and breaks of lines is the format's own.
        bare = re.sub(r"#\d+;", "", line).replace("<br/>", " ")
        assert plain.fullmatch(bare), line
        assert "<" not in bare.replace("<br/>", "")
        assert bare.count('"') % 2 == 0
    assert "#60;script#62;" in text


@pytest.mark.parametrize("made", [hostile(), many(60)], ids=["hostile", "many"])
def test_graphviz_reads_it(made):
    program = shutil.which("dot")
    if program is None:
        pytest.skip("graphviz is not installed")
    text = dot(drawn(made), 40)
    done = subprocess.run([program, "-Tsvg"], input=text.encode(), capture_output=True, check=True)
    root = ElementTree.fromstring(done.stdout)
    texts = "\n".join("".join(one.itertext()) for one in root.iter(f"{_SVG}text"))
    for one in drawn(made).boxes[:3]:
        assert one.short in texts, one.short
    assert done.stderr == b""


def test_page_has_no_markup_of_names():
    """Neither in the tables, nor in the data, which a name must not end."""
    text = page(drawn(hostile()))
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    assert "<img" not in text
    assert "onerror=alert(1)>" not in text
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in text
    assert "\\u003c/script\\u003e" in text
    assert "\x1b" not in text
    assert "\ud800" not in text


def test_page_allows_only_what_is_in_it():
    text = page(drawn(many(3)))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert "style=" not in text
    assert not re.search(r"<[^>]* on[a-z]+=", text.split("<script")[0])
