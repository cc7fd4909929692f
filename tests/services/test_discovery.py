"""The client library: who serves a name, and on to the next one where one fails."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from contextlib import aclosing, closing

import pytest

from cni_py.discovery import Discovery, NoInstanceError, StoreError, Unavailable, UnreachableError
from cni_py.discovery.aio import Discovery as AioDiscovery
from cni_py.services.opening import open_registry
from fixtures.http_servers import HttpServer

from .subjects import InConsul, InSqlite, eventually, instance


def test_what_is_registered_is_resolved_and_watched(subject):
    async def story():
        async with subject.open() as registry, registry.registrant("n1") as registrant:
            async with AioDiscovery(subject.open()) as services:
                assert await services.resolve("web") == ()
                async with aclosing(services.watch("web")) as views:
                    assert await anext(views) == ()
                    await registrant.register(instance(1))
                    assert await anext(views) == (instance(1),)
                    assert await services.resolve("web") == (instance(1),)
                    await registrant.register(instance(2))
                    assert await anext(views) == (instance(1), instance(2))
                    await registrant.withdraw(instance(1))
                    assert await anext(views) == (instance(2),)
                with pytest.raises(ValueError, match="no DNS label"):
                    await services.resolve("no such/name")

    subject.run(story)


def test_what_was_known_is_told_while_the_registry_is_away(subject):
    subject.patience = 2.5

    async def story():
        async with subject.open() as registry, registry.registrant("n1", 60) as registrant:
            await registrant.register(instance(1))
            async with AioDiscovery(subject.open()) as services:
                assert await services.resolve("web") == (instance(1),)
                subject.stop()
                assert await services.pick("web") == instance(1)
                with pytest.raises(Unavailable):
                    await services.resolve("db")
                assert await services.resolve("web") == (instance(1),)
                subject.start()
                await eventually(lambda: _ids(services, "db"), [])
                await registrant.register(instance(2))
                await eventually(lambda: _ids(services, "web"), ["c1-1", "c2-1"])

    subject.run(story)


async def _ids(services, name) -> list[str] | None:
    try:
        return [one.id for one in await services.resolve(name)]
    except Unavailable:
        return None


def test_picks_go_by_weight_or_by_turn(consul):
    async def story():
        async with InConsul(consul).open() as registry, registry.registrant("n1") as registrant:
            await registrant.register(instance(1, weight=3))
            await registrant.register(instance(2))
            async with AioDiscovery(InConsul(consul).open()) as services:
                picked = Counter([(await services.pick("web")).id for _ in range(8)])
                assert picked == {"c1-1": 6, "c2-1": 2}
                picked = Counter([(await services.pick("web", by="turn")).id for _ in range(8)])
                assert picked == {"c1-1": 4, "c2-1": 4}
                with pytest.raises(NoInstanceError, match='"db" has no healthy'):
                    await services.pick("db")

    InConsul(consul).run(story)


def test_a_call_goes_on_to_the_next_instance(consul):
    asked: list[str] = []

    async def ping(one):
        asked.append(one.id)
        if one.id != "c3-1":
            raise ConnectionRefusedError(one.id)
        return f"pong of {one.id}"

    async def story():
        async with InConsul(consul).open() as registry, registry.registrant("n1") as registrant:
            for number in (1, 2, 3):
                await registrant.register(instance(number))
            async with AioDiscovery(InConsul(consul).open()) as services:
                for _ in range(20):
                    assert await services.call("web", ping) == "pong of c3-1"
                assert asked.count("c3-1") == 20
                picked = {(await services.pick("web")).id for _ in range(3)}
                assert "c3-1" in picked

    InConsul(consul).run(story)


def test_a_call_waits_for_an_instance_and_for_one_that_comes_back(consul):
    answers = iter([False, False, True])

    async def ping(one):
        if not next(answers):
            raise OSError(113, "No route to host")
        return one.id

    async def story():
        async with InConsul(consul).open() as registry, registry.registrant("n1") as registrant:
            async with AioDiscovery(InConsul(consul).open()) as services:
                call = asyncio.create_task(services.call("web", ping))
                await eventually(lambda: _asked(consul), True)
                assert not call.done()
                await registrant.register(instance(1))
                assert await call == "c1-1"

    InConsul(consul).run(story)


async def _asked(consul) -> bool:
    return any("/health/service/web" in path for _, path in consul.requests)


def test_a_call_ends_in_time_and_says_why(consul):
    async def hang(*_):
        await asyncio.sleep(60)

    async def fail(*_):
        raise ConnectionResetError("reset by peer")

    async def defect(*_):
        raise KeyError("of the caller's own")

    async def call(function, *, known=True, **options):
        # One that has not seen anybody fail.
        async with AioDiscovery(InConsul(consul).open()) as services:
            if known:
                await services.resolve("web")
            await services.call("web", function, **{"seconds": 0.5} | options)

    async def story():
        async with InConsul(consul).open() as registry, registry.registrant("n1") as registrant:
            with pytest.raises(NoInstanceError):
                await call(fail)
            for number in (1, 2):
                await registrant.register(instance(number))
            with pytest.raises(UnreachableError, match="reset by peer") as caught:
                await call(fail)
            assert caught.value.tried >= 2
            assert isinstance(caught.value.__cause__, ConnectionResetError)
            with pytest.raises(UnreachableError, match="TimeoutError") as caught:
                await call(hang, each=0.05)
            assert caught.value.tried >= 2
            with pytest.raises(UnreachableError, match="1 attempts"):
                await call(hang)
            with pytest.raises(KeyError):
                await call(defect, seconds=5)
            with pytest.raises(UnreachableError, match="of the caller"):
                await call(defect, failures=(LookupError,))
            consul.stop()
            with pytest.raises(StoreError):
                await call(fail, known=False)
            consul.start()

    InConsul(consul).run(story)


def test_a_right_that_is_taken_away_is_told(consul):
    async def story():
        wrong = open_registry(f"consul:{consul.url}", token="wrong")
        async with AioDiscovery(wrong) as services:
            for _ in range(2):
                with pytest.raises(StoreError, match="403"):
                    await services.resolve("web")
            with pytest.raises(StoreError, match="403"):
                await services.call("web", None, seconds=5)
        async with InConsul(consul).open() as registry:
            services = AioDiscovery(registry)
            async with aclosing(services.watch("web")) as views:
                assert await anext(views) == ()
                consul.token, given = "another", consul.token
                with pytest.raises(StoreError, match="403"):
                    await anext(views)
                consul.token = given
            assert await services.resolve("web") == ()
            await services.close()

    InConsul(consul).run(story)


@pytest.fixture
def registered(tmp_path):
    """A SQLite registry with two instances: a server that answers, and a port where nobody is."""
    subject = InSqlite(tmp_path / "state")
    server = HttpServer(lambda *_: (200, {}, b"pong"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = free.getsockname()[1]
    alive = int(server.url.rpartition(":")[2])

    async def register():
        async with subject.open() as registry, registry.registrant("n1", 300) as registrant:
            for number, port in enumerate((dead, alive), 1):
                one = instance(number, addresses=("127.0.0.1",), port=port)
                await registrant.register(one)

    asyncio.run(register())
    yield f"sqlite:{tmp_path}/state/store.db", subject.layout.domain
    server.close()


def test_without_asyncio_it_is_the_same(registered):
    where, domain = registered
    before = threading.active_count()

    def ping(one):
        with socket.create_connection((one.addresses[0], one.port), 5) as peer:
            peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return peer.recv(1000).partition(b" ")[2][:3]

    with Discovery(where, domain=domain) as services:
        assert [one.id for one in services.resolve("web")] == ["c1-1", "c2-1"]
        assert {services.call("web", ping) for _ in range(10)} == {b"200"}
        assert services.pick("web").id == "c2-1"
        with closing(services.watch("web")) as views:
            assert len(next(views)) == 2
        with pytest.raises(NoInstanceError):
            services.call("db", ping, seconds=0.2)
        with pytest.raises(UnreachableError):
            services.call("web", _refuse, seconds=0.7)
        several = [threading.Thread(target=services.call, args=("web", ping)) for _ in range(8)]
        for one in several:
            one.start()
        for one in several:
            one.join()
    services.close()
    with pytest.raises(RuntimeError, match="closed"):
        services.resolve("web")
    assert threading.active_count() <= before


def _refuse(*_):
    raise ConnectionRefusedError


@pytest.mark.parametrize(
    ("where", "options", "wrong"),
    [
        ("redis:x", {}, "is not etcd:URL"),
        ("sqlite:", {}, "is not etcd:URL"),
        ("etcd:nowhere", {}, "no endpoint"),
        ("consul:nowhere", {}, "no http"),
        ("sqlite:/x", {"domain": "No.Domain"}, "no domain"),
        ("sqlite:/x", {"prefix": "/a/b"}, "is not /skydns"),
        ("etcd:http://127.0.0.1:1", {"user": "me"}, "needs a password"),
    ],
)
def test_a_place_that_cannot_be(where, options, wrong):
    before = threading.active_count()
    with pytest.raises(ValueError, match=wrong):
        Discovery(where, **options)
    assert threading.active_count() == before
