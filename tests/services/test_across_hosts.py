"""Keepers on several hosts that agree through an etcd, and what happens to it and to them."""

from __future__ import annotations

import signal
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from fixtures.agents import EtcdInRouter
from fixtures.underlay import Underlay

from .shop import WEB, Place, becomes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TTL = 3


class Hosts:
    """Two hosts with an agent each, on two links, and an etcd in the router between them."""

    def __init__(self, underlay: Underlay, etcd: EtcdInRouter, folder: Path) -> None:
        self.underlay, self.etcd = underlay, etcd
        options = (f"--etcd-endpoints={etcd.endpoints}", f"--services-ttl={_TTL}")
        self.places = [
            Place(member.host, folder, options, f"10.77.{number}.0/24")
            for number, member in underlay.members.items()
        ]

    def cut(self, number: int) -> None:
        self.underlay.members[number].set_cable(up=False)

    def mend(self, number: int) -> None:
        self.underlay.members[number].set_cable(up=True)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with ExitStack() as stack:
        underlay = stack.enter_context(closing(Underlay.start((1, 2))))
        etcd = stack.enter_context(closing(EtcdInRouter(underlay.router)))
        etcd.start()
        made = Hosts(underlay, etcd, tmp_path)
        for place in made.places:
            place.has_names()
            stack.enter_context(closing(place.start()))
        yield made


def web(*served) -> set[str]:
    return {one.address for one in served}


def led(place: Place):
    """Where web leads on a host, as a function to ask again."""
    return lambda: place.names().get("web.shop.test", set())


def test_registry_away(hosts: Hosts) -> None:
    """Names of a host's own services follow its checks, others stay; both catch up afterwards."""
    one, two = hosts.places
    here, there = one.serve("c1"), two.serve("c2")
    for place in hosts.places:
        becomes(led(place), web(here, there))
    hosts.etcd.kill()
    second = one.serve("c3")
    becomes(led(one), web(here, second, there))
    here.stop()
    becomes(led(one), web(second, there))
    assert led(two)() == web(here, there)
    # An agent that begins without the registry leaves others' names as they were.
    assert one.agent is not None
    one.agent.restart(signal.SIGKILL)
    second.stop()
    becomes(led(one), web(there))
    here.start()
    becomes(led(one), web(here, there))
    hosts.etcd.start()
    for place in hosts.places:
        becomes(led(place), web(here, there))
    assert "services" in one.agent.status()["companions"]


def test_host_cut_off(hosts: Hosts) -> None:
    """Its entries expire; it keeps its own names; it is back with its cable."""
    one, two = hosts.places
    here, there = one.serve("c1"), two.serve("c2")
    for place in hosts.places:
        becomes(led(place), web(here, there))
    hosts.cut(2)
    becomes(led(one), web(here))
    there.stop()
    becomes(led(two), web(here))
    there.start()
    becomes(led(two), web(here, there))
    hosts.mend(2)
    for place in hosts.places:
        becomes(led(place), web(here, there))


def test_host_dead(hosts: Hosts) -> None:
    """Nobody says goodbye for it. A network of another name never had its services."""
    one, two = hosts.places
    other = {"name": "api", "port": 8080, "check": WEB["check"]}
    here, there = one.serve("c1"), two.serve("c2", WEB, other)
    one.host.run("cp", "-r", "/run/cni-py/dns/shop", "/run/cni-py/dns/lab")
    told = one.host.run("cat", "/run/cni-py/dns/lab/network.json").stdout
    told = told.replace("shop", "lab")
    one.host.run("tee", "/run/cni-py/dns/lab/network.json", stdin=told)
    becomes(led(one), web(here, there))
    becomes(lambda: one.names().get("api"), {there.address})
    hosts.cut(2)
    assert two.agent is not None
    two.agent.end(signal.SIGKILL)
    becomes(led(one), web(here))
    assert "api" not in one.names()
    assert one.host.run("find", "/run/cni-py/dns/lab/hosts", "-type", "f").stdout == ""
