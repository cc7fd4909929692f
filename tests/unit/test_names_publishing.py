"""What is published of a network's names: whole files, and nothing of what is no name."""

from __future__ import annotations

import os
import stat

import pytest

from cni_py import names
from cni_py.names import network as kept
from cni_py.names import publishing


@pytest.fixture
def web(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "FOLDER", str(tmp_path))
    network = names.Network(name="web", domain="cni.internal", addresses=("10.9.0.1",))
    kept.save(network)
    os.mkdir(network.hosts)
    return network


def test_the_networks_with_names_are_listed(web):
    assert names.networks() == [web]


def test_there_are_none_without_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "FOLDER", str(tmp_path / "none"))
    assert names.networks() == []


def test_names_are_published_in_all_forms(web):
    names.publish(web, "service-api", [("10.9.0.2", ("API", "v1.api")), ("fd09::2", ("api",))])
    path = f"{web.hosts}/service-api"
    with open(path) as file:
        assert file.read() == (
            "10.9.0.2 api.cni.internal api v1.api.cni.internal v1.api\n"
            "fd09::2 api.cni.internal api\n"
        )
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert os.listdir(web.folder + "/hosts") == ["service-api"]


def test_publishing_again_replaces_and_withdrawing_takes_back(web):
    names.publish(web, "service-api", [("10.9.0.2", ("api",))], note="first")
    names.publish(web, "service-api", [("10.9.0.3", ("api",))], note="second")
    assert publishing.published(web, "service-api") == (
        "second",
        {"10.9.0.3": ["api.cni.internal", "api"]},
    )
    names.withdraw(web, "service-api")
    names.withdraw(web, "service-api")
    assert publishing.sources(web) == []
    assert publishing.published(web, "service-api") is None


@pytest.mark.parametrize(
    ("source", "entries", "note"),
    [
        ("../x", [("10.9.0.2", ("api",))], ""),
        (".x", [("10.9.0.2", ("api",))], ""),
        ("", [("10.9.0.2", ("api",))], ""),
        ("x~", [("10.9.0.2", ("api",))], ""),
        ("x", [("10.9.0.2", ("api\n10.0.0.1 bank",))], ""),
        ("x", [("10.9.0.2\n10.0.0.1", ("api",))], ""),
        ("x", [("10.9.0.2", ("api",))], "note\n10.0.0.1 bank"),
    ],
)
def test_what_would_say_more_than_it_should_is_refused(web, source, entries, note):
    with pytest.raises(ValueError, match=r"."):
        names.publish(web, source, entries, note)
    assert publishing.sources(web) == []
    assert sorted(os.listdir(web.folder)) == ["hosts", "network.json"]
