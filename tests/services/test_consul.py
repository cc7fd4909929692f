"""What is special about Consul: its tokens, certificates, indexes, and what it says meanwhile."""

from __future__ import annotations

import json
import ssl
import time

import pytest

from cni_py.cluster.store_errors import Denied, Unavailable
from cni_py.services.consul import Consul
from cni_py.services.consul_access import ConsulAccess
from cni_py.services.registry import Claimed
from fixtures.certificates import Authority
from fixtures.consul import ConsulAgent
from fixtures.http_servers import HttpServer

from .subjects import InConsul, Story, eventually, instance


def test_what_consul_is_told_is_what_its_own_clients_read(consul):
    async def story():
        async with InConsul(consul).open() as registry, registry.registrant("n1", 30) as one:
            await one.register(
                instance(addresses=("10.1.0.2", "10.1.0.3", "fd00::2"), weight=3,
                         metadata={"version": "2"}))  # fmt: skip
        (given,) = [service.given for service in consul._services.values()]
        assert given == {
            "ID": "c1-1", "Name": "web", "Tags": ["cni-py"], "Address": "10.1.0.2", "Port": 8080,
            "TaggedAddresses": {
                "lan_ipv4": {"Address": "10.1.0.2", "Port": 8080},
                "lan_ipv6": {"Address": "fd00::2", "Port": 8080},
            },
            "Meta": {
                "version": "2", "cni-py-node": "n1", "cni-py-network": "containers",
                "cni-py-protocol": "tcp", "cni-py-addresses": "10.1.0.2,10.1.0.3,fd00::2",
            },
            "Weights": {"Passing": 3, "Warning": 1},
            "Check": {
                "Name": "cni-py agent of n1", "TTL": "30s", "Status": "passing",
                "DeregisterCriticalServiceAfter": "1m",
            },
        }  # fmt: skip

    InConsul(consul).run(story)


@pytest.mark.parametrize("token", ["", "another"])
def test_who_has_no_right_is_told_at_once(consul, token):
    async def story():
        async with Consul(ConsulAccess(consul.url, token)) as registry:
            with pytest.raises(Denied, match="403 Permission denied"):
                await registry.list()
            with pytest.raises(Denied):
                await anext(registry.watch("web"))
            async with registry.registrant("n1") as registrant:
                with pytest.raises(Denied):
                    await registrant.register(instance())
                assert "403" in registrant.problem

    InConsul(consul).run(story)
    assert "s3cret" not in repr(ConsulAccess(consul.url, "s3cret"))


def test_an_agent_without_a_leader_is_asked_again(consul):
    async def story():
        async with InConsul(consul).open() as registry, registry.registrant("n1") as registrant:
            consul.refusing = 2
            await registrant.register(instance())
            consul.refusing = 1
            assert (await registry.list()).instances == (instance(),)
            registry._seconds = 0.5
            consul.refusing = 10_000
            with pytest.raises(Unavailable, match="500 No cluster leader"):
                await registry.list()
            consul.refusing = 0

    InConsul(consul).run(story)


def test_an_index_that_goes_back_is_begun_anew(consul):
    async def story():
        async with InConsul(consul).open() as registry, registry.registrant("n1") as registrant:
            for number in range(1, 6):
                await registrant.register(instance(number))
            async with Story(registry, "web") as watched:
                await watched.until(lambda: len(watched.ids) == 5)
                # A restored snapshot: the servers count from an earlier number.
                consul.forget(index=2)
                await watched.until(lambda: watched.ids == [])
                await registrant.register(instance(6))
                await watched.until(lambda: "c6-1" in watched.ids)
        assert not any("index=0" in path for _, path in consul.requests)

    InConsul(consul).run(story)


def test_of_two_entries_of_one_id_the_older_is_believed(consul):
    async def story():
        async with InConsul(consul).open() as registry, registry.registrant("n1") as registrant:
            await registrant.register(instance())
            other = json.loads(json.dumps(consul._services["c1-1"].given))
            other["Port"] = 1
            # Of another of Consul's nodes, where ids are its own.
            consul.put(other | {"ID": "elsewhere"})
            consul._services["elsewhere"].given["ID"] = "c1-1"
            view = await registry.list("web")
            assert view.instances == (instance(),)
            assert [one.reason for one in view.left_out] == ["another of Consul's nodes has it too"]

    InConsul(consul).run(story)


def test_a_service_of_somebody_else_is_not_touched(consul):
    async def story():
        consul.put({"ID": "c1-1", "Name": "web", "Port": 1, "Meta": {}})
        async with InConsul(consul).open() as registry, registry.registrant("n1") as registrant:
            with pytest.raises(Claimed, match="not of cni-py's making"):
                await registrant.register(instance())
            await registrant.withdraw(instance())
            await eventually(lambda: _trouble(registrant), "")
        assert consul._services["c1-1"].given["Port"] == 1

    InConsul(consul).run(story)


async def _trouble(registrant) -> str:
    return registrant.problem


def test_closing_does_not_wait_for_a_question_that_waits(consul):
    async def story():
        access = ConsulAccess(consul.url, consul.token)
        registry = Consul(access, progress=500)
        async with Story(registry, "web") as watched:
            await watched.until(lambda: watched.views)
            await eventually(_waiting, True)
        await registry.close()

    async def _waiting() -> bool:
        return any("wait=500s" in path for _, path in consul.requests)

    InConsul(consul).run(story)


def test_certificates_of_both(tmp_path):
    authority = Authority.made(tmp_path / "authority")
    strangers = Authority.made(tmp_path / "strangers")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
    context.load_cert_chain(*authority.sign("consul"))
    context.verify_mode = ssl.CERT_REQUIRED
    agent = ConsulAgent(tls=context).start()
    certificate, key = authority.sign("node")

    async def story():
        trusted = ConsulAccess(agent.url, "", authority.ca, certificate, key)
        async with Consul(trusted) as registry, registry.registrant("n1") as registrant:
            await registrant.register(instance())
            assert (await registry.list("web")).instances == (instance(),)
        for access, error in (
            (ConsulAccess(agent.url, "", strangers.ca, certificate, key), "not trusted"),
            (ConsulAccess(agent.url, "", str(tmp_path / "none")), "No such file"),
            (ConsulAccess(agent.url, "", key), "ca"),
        ):
            async with Consul(access, seconds=1) as registry:
                with pytest.raises(Denied, match=error):
                    await registry.list()
        async with Consul(ConsulAccess(agent.url, "", authority.ca), seconds=1) as registry:
            with pytest.raises(Unavailable):
                await registry.list()

    try:
        InConsul(agent).run(story)
    finally:
        agent.stop()


@pytest.mark.parametrize(
    "said",
    [
        (200, {}, b"<html>"),
        (200, {}, b'{"web": 1}'),
        (200, {"X-Consul-Index": "many"}, b"[]"),
        (200, {"X-Consul-Index": "-5"}, b"[]"),
        (301, {"Location": "http://127.0.0.1:1/"}, b""),
        (400, {}, b"\xff\n\x1b[2J"),
        (200, {}, b"[" * 100_000),
    ],
)
def test_what_is_no_consul_is_said_in_one_line(said):
    server = HttpServer(lambda *_: said)

    async def story():
        async with Consul(ConsulAccess(server.url), seconds=1) as registry:
            with pytest.raises((Denied, Unavailable)) as caught:
                await registry.list()
            texts = [str(caught.value)]
            try:
                texts.append((await anext(registry.watch("web"))).lost)
            except Denied as error:
                texts.append(str(error))
            for one in texts:
                assert one.isprintable()
                assert one.startswith(server.url)

    try:
        InConsul(ConsulAgent()).run(story)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("access", "wrong"),
    [
        ({"url": "127.0.0.1:8500"}, "no http"),
        ({"url": "http://me@host"}, "has a user"),
        ({"url": "http://host:port"}, "Port"),
        ({"token": "a\nb"}, "one line"),
        ({"token": "ä"}, "ASCII"),
        ({"certificate": "x"}, "needs its key"),
    ],
)
def test_an_access_that_cannot_be(access, wrong):
    with pytest.raises(ValueError, match=wrong):
        ConsulAccess(**access)
    assert ConsulAccess("http://10.0.0.1:8500").is_readable
    assert not ConsulAccess("https://10.0.0.1").is_readable
    assert not ConsulAccess().is_readable


def test_a_check_that_is_renewed_late_comes_back(consul):
    async def story():
        async with InConsul(consul).open() as registry, Story(registry, "web") as watched:
            async with registry.registrant("n1", 1) as registrant:
                await registrant.register(instance())
                await watched.until(lambda: watched.ids == ["c1-1"])
                consul.refusing = 10_000
                deadline = time.monotonic() + 20
                while consul._services["c1-1"].ends > time.monotonic():
                    assert time.monotonic() < deadline
                    await eventually(lambda: _has(registrant.problem), True)
                consul.refusing = 0
                await watched.until(lambda: not watched.lost and watched.ids == ["c1-1"])
                await eventually(lambda: _trouble(registrant), "")

    InConsul(consul).run(story)


async def _has(text: str) -> bool:
    return bool(text)
