"""`cni-py graph`: every format of a real host."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

from fixtures.furnished import API, WEB
from fixtures.host import BIN, Host, Outcome
from fixtures.terminal import on_terminal

CNI_PY = str(BIN / "cni-py")


def graph(host: Host, *arguments: str) -> Outcome:
    return host.run(CNI_PY, "graph", *arguments, check=False)


def test_tree_on_a_terminal(looked_at):
    screen = on_terminal(looked_at.host, CNI_PY, "graph", columns=120)
    assert screen.status == 0
    text = screen.text
    assert re.search(r"├── up0  uplink  192\.0\.2\.7/24", text)
    assert re.search(r"├── cni2  bridge  10\.87\.0\.1/16, fd87::1/64  masqueraded", text)
    assert re.search(r"10\.40\.0\.0/28  5 of 13 given, 38%", text)
    assert f"{WEB[:12]}  eth0  10.87.0.2/16, fd87::2/64  veth" in text
    assert "also eth1 on backend  10.40.0.2/28" in text
    assert "! eth0 is down" in text
    assert "probe  eth0  192.0.2.100/24  macvlan" in text


def test_of_one_container(looked_at):
    text = graph(looked_at.host, API).stdout
    assert API[:12] in text
    assert "cni2" in text
    assert "backend0" not in text
    assert "probe" not in text


def test_fold(looked_at):
    text = graph(looked_at.host, "--fold", "1", "backend0").stdout
    assert "db-2" in text
    assert "db-1" not in text
    assert "3 more containers: 3 up" in text


def test_json(looked_at):
    found = json.loads(graph(looked_at.host, "--json").stdout)
    assert {one["name"]: one["kind"] for one in found["hubs"]} == {
        "cni2": "bridge",
        "backend0": "bridge",
        "up0": "parent",
        "backend": "gone",
    }
    (web,) = [one for one in found["boxes"] if one["container"] == WEB]
    assert [(one["hub"], one["ifname"]) for one in web["legs"]] == [
        ("h:bridge:cni2", "eth0"),
        ("h:bridge:backend0", "eth1"),
    ]
    assert web["ports"] == ["8080→80/tcp"]


def test_svg_to_a_file(looked_at, tmp_path):
    path = tmp_path / "host.svg"
    done = graph(looked_at.host, "--format", "svg", "-o", str(path))
    assert (done.status, done.stdout, done.stderr) == (0, "", "")
    texts = "".join(ElementTree.parse(path).getroot().itertext())
    for text in (WEB[:12], "eth1", "10.40.0.2/28", "probe"):
        assert text in texts


def test_mermaid_and_dot_have_the_containers(looked_at):
    for kind, begin in (("mermaid", "flowchart LR\n"), ("dot", "digraph {\n")):
        text = graph(looked_at.host, "--format", kind).stdout
        assert text.startswith(begin)
        assert "8f3a61c09e57" in text
        assert "5 of 13 given" in text


def test_files_that_cannot_be_written(looked_at, tmp_path):
    for path in (tmp_path / "none" / "x.svg", tmp_path):
        done = graph(looked_at.host, "--format", "svg", "-o", str(path))
        assert (done.status, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert str(path) in done.stderr


def test_host_without_anything(host):
    for kind in ("tree", "mermaid", "dot", "svg", "html"):
        done = graph(host, "--format", kind)
        assert (done.status, done.stderr) == (0, ""), kind


def test_reader_that_goes_away(looked_at):
    done = looked_at.host.run("sh", "-c", f"{CNI_PY} graph --format html | head -1")
    assert (done.stdout, done.stderr) == ("<!doctype html>\n", "")
