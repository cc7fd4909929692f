"""The keeper in an agent on one host, with the registry in a file."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from fixtures.consul import ConsulAgent
from fixtures.host import Host
from fixtures.underlay import entered

from .shop import FOLDER, NETWORK, WEB, Place, becomes, registered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A host whose network has names, and an agent that keeps services."""
    with closing(Host.start()) as host:
        store = f"--store=sqlite:{tmp_path}/state/store.db"
        with closing(Place(host, tmp_path, (store, "--services-ttl=2"))) as place:
            place.has_names()
            yield place


def web(*served) -> dict[str, set[str]]:
    """The names that lead to these."""
    addresses = {one.address for one in served}
    return {"web": addresses, "web.shop.test": addresses} if addresses else {}


def found(place: Place) -> set[str]:
    """The addresses that the registry has."""
    instances = registered(f"{place.folder}/state/store.db")
    return {address for one in instances for address in one.addresses}


def test_one_life(place: Place) -> None:
    """Named and registered once it answers; out while it does not; gone with DEL."""
    place.start()
    one, other = place.serve("c1"), place.serve("c2", running=False)
    becomes(place.names, web(one))
    becomes(lambda: found(place), {one.address})
    other.start()
    becomes(place.names, web(one, other))
    becomes(lambda: found(place), {one.address, other.address})
    one.stop()
    becomes(place.names, web(other))
    becomes(lambda: found(place), {other.address})
    other.hang(on=True)
    becomes(place.names, {})
    becomes(lambda: found(place), set())
    other.hang(on=False)
    one.start()
    becomes(place.names, web(one, other))
    becomes(lambda: found(place), {one.address, other.address})
    assert place.agent is not None
    metrics = place.agent.ask("/metrics").decode().splitlines()
    assert "# TYPE cni_py_agent_services_healthy gauge" in metrics
    for name in ("declared 2", "healthy 2", "elsewhere 0", "registered 1"):
        assert f"cni_py_agent_services_{name}" in metrics
    one.delete()
    becomes(place.names, web(other))
    becomes(lambda: found(place), {other.address})
    other.delete()
    becomes(place.names, {})
    becomes(lambda: found(place), set())
    assert place.agent is not None
    assert place.agent.status()["ready"] is True
    assert place.agent.status()["companions"]["services"].startswith("0 of 0 here answer")


def test_killed_and_started_again(place: Place) -> None:
    """Names stay while nobody keeps them; what died meanwhile goes, what came is found."""
    place.start()
    one, other = place.serve("c1"), place.serve("c2")
    becomes(place.names, web(one, other))
    becomes(lambda: found(place), {one.address, other.address})
    assert place.agent is not None
    place.agent.end(signal.SIGKILL)
    assert place.names() == web(one, other)
    # Its entries in the registry end by themselves.
    becomes(lambda: found(place), set())
    other.stop()
    third = place.serve("c3")
    place.start()
    becomes(place.names, web(one, third))
    becomes(lambda: found(place), {one.address, third.address})
    # What answered before has never been taken out.
    lost = [
        (event["instance"], event["address"])
        for event in place.agent.events("service does not answer")
    ]
    assert [address for _, address in lost] == [other.address]


def test_released(place: Place) -> None:
    """Everything is taken back at once."""
    place.start()
    one = place.serve("c1")
    becomes(place.names, web(one))
    becomes(lambda: found(place), {one.address})
    assert place.agent is not None
    place.agent.release()
    place.agent.process = None
    assert found(place) == set()
    assert place.names() == {}


def test_without_a_check(place: Place) -> None:
    """It is there as long as its container; a network without names is registered all the same."""
    place.host.run("rm", "-r", "/run/cni-py/dns")
    place.start()
    plain = {"name": "db", "port": 5432, "metadata": {"role": "main"}, "weight": 3}
    one = place.serve("c1", plain, running=False)
    becomes(lambda: found(place), {one.address})
    (instance,) = registered(f"{place.folder}/state/store.db")
    assert (instance.service, instance.network, instance.port) == ("db", NETWORK, 5432)
    assert (instance.weight, instance.metadata) == (3, {"role": "main"})
    # Names may come later.
    place.has_names()
    becomes(lambda: place.names().get("db"), {one.address})


def test_files_that_are_none(place: Place) -> None:
    """What is damaged or poisoned is passed over and told, and stays; others go on."""
    one = place.serve("c1")
    (path,) = place.declared()
    text = place.host.run("cat", path).stdout
    poisoned = json.loads(text)
    poisoned["declaration"]["services"] = [WEB | {"name": "evil\n10.9.9.9 web"}]
    other = "0" * 16
    for file, content in (
        (f"{other}-{other}.json", text),
        (f"{other}-1{other[1:]}.json", json.dumps(poisoned)),
        (f"{other}-2{other[1:]}.json", '{"boot":'),
        (f"{other}-3{other[1:]}.json", ""),
        (f"{other}-4{other[1:]}.json", json.dumps(json.loads(text) | {"boot": "another"})),
        ("x.json", "[]"),
    ):
        place.host.run("tee", f"{FOLDER}/{file}", stdin=content)
    place.host.run("mkdir", f"{FOLDER}/folder.json")
    place.host.run("ln", "-s", "/etc/passwd", f"{FOLDER}/link.json")
    place.host.run("mkfifo", f"{FOLDER}/fifo.json")
    before = place.declared()
    place.start()
    becomes(place.names, web(one))
    assert place.agent is not None
    told = [event["path"] for event in place.agent.events("declaration passed over")]
    assert sorted(told) == [one for one in before if one != path]
    assert place.declared() == before
    # The attachment's own file, damaged: it is as if nothing was declared.
    place.host.run("tee", path, stdin=text[:40])
    becomes(place.names, {})
    place.host.run("sh", "-c", f"cat >{path}.new && mv {path}.new {path}", stdin=text)
    becomes(place.names, web(one))


def test_consul(place: Place) -> None:
    """The registry is a Consul, and no store is asked."""
    with entered(place.host):
        consul = ConsulAgent(token="s3cret").start()
    (place.folder / "token").write_text("s3cret\n")
    token = f"--consul-token-file={place.folder}/token"
    place.options = (f"--registry=consul:{consul.url}", token, "--services-ttl=2")

    def passing() -> list[str]:
        known = list(consul._services.values())
        return [one.given["Address"] for one in known if one.status == "passing"]

    try:
        place.start()
        one = place.serve("c1")
        becomes(place.names, web(one))
        becomes(passing, [one.address])
        one.stop()
        becomes(passing, [])
        assert place.host.run("ls", "/run/cni-py/cluster").stdout.split() == [
            "@services.healthy", "@services.lock", "default.json.lock", "default.sock",
        ]  # fmt: skip
    finally:
        consul.stop()


def test_two_agents_of_a_host(place: Place) -> None:
    """One keeps services; the other takes over at its end."""
    place.start()
    one = place.serve("c1")
    becomes(place.names, web(one))
    second = Place(place.host, place.folder, (*place.options, "--network=second"))
    with closing(second.start()):
        assert second.agent is not None
        assert second.agent.has_told("services are kept by another agent of this host")
        assert place.agent is not None
        place.agent.end(signal.SIGKILL)
        one.stop()
        becomes(place.names, {})
