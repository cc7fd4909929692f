"""What every registry does: each of these runs against etcd, SQLite and Consul."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from subprocess import Popen

import msgspec
import pytest
from msgspec.structs import replace

from cni_py.cluster.store_errors import Unavailable
from cni_py.services.registry import Claimed
from fixtures.etcd import ENDING_WITH_US

from .subjects import Story, eventually, instance


async def _ids(registry, service: str = "") -> list[str]:
    return [one.id for one in (await registry.list(service)).instances]


def test_what_is_registered_is_found_until_it_is_withdrawn(subject):
    async def story():
        async with subject.open() as registry, registry.registrant("n1") as registrant:
            assert (await registry.list()).instances == ()
            first = instance(
                1, addresses=("10.1.0.2", "fd00::2"), weight=7, protocol="udp", port=53,
                metadata={"version": "1", "says": "ä, \"b\" 'c'"},
            )  # fmt: skip
            second, other = instance(2), instance(3, service="db")
            for one in (first, second, other):
                await registrant.register(one)
            assert registrant.problem == ""
            async with subject.open() as reader:
                await eventually(lambda: _ids(reader), ["c3-1", "c1-1", "c2-1"])
                view = await reader.list("web")
                assert view.instances == (first, second)
                assert (view.left_out, view.lost) == ((), "")
                assert (await reader.list("db")).instances == (other,)
                assert (await reader.list("we")).instances == ()
                await registrant.withdraw(first)
                await eventually(lambda: _ids(reader, "web"), ["c2-1"])

    subject.run(story)


def test_withdrawing_twice_or_what_never_was_is_no_error(subject):
    async def story():
        async with subject.open() as registry, registry.registrant("n1") as registrant:
            await registrant.register(instance())
            for one in (instance(), instance(), instance(2), instance(3, node="n2")):
                await registrant.withdraw(one)
            await eventually(lambda: _ids(registry), [])
            assert registrant.problem == ""

    subject.run(story)


def test_an_instance_is_replaced_by_its_next_form(subject):
    async def story():
        async with subject.open() as registry, registry.registrant("n1") as registrant:
            for form in (
                instance(),
                instance(addresses=("10.1.0.2", "10.1.0.3", "fd00::2")),
                instance(addresses=("fd00::3",), weight=9, port=81, metadata={"a": "b"}),
                instance(),
                instance(),
            ):
                await registrant.register(form)

                async def found():
                    return (await registry.list()).instances

                await eventually(found, (form,))

    subject.run(story)


def test_a_watch_tells_how_it_is_and_each_change(subject):
    async def story():
        async with subject.open() as registry, subject.open() as other:
            async with registry.registrant("n1") as registrant:
                await registrant.register(instance(1))
                async with Story(other, "web") as web, Story(other) as every:
                    await web.until(lambda: web.ids == ["c1-1"])
                    await registrant.register(instance(2))
                    await registrant.register(instance(3, service="db"))
                    await web.until(lambda: web.ids == ["c1-1", "c2-1"])
                    await every.until(lambda: every.ids == ["c3-1", "c1-1", "c2-1"])
                    await registrant.register(instance(1, weight=5))
                    await web.until(lambda: web.views[-1].instances[0].weight == 5)
                    await registrant.withdraw(instance(1))
                    await web.until(lambda: web.ids == ["c2-1"])
                    assert all(one.service == "web" for view in web.views for one in view.instances)
                    assert not any(view.lost or view.left_out for view in web.views)

    subject.run(story)


def test_several_nodes_register_one_service(subject):
    async def story():
        async with subject.open() as one, subject.open() as two, Story(two, "web") as watched:
            async with one.registrant("n1") as first, two.registrant("n2") as second:
                here, there = instance(1), instance(2, node="n2")
                await asyncio.gather(first.register(here), second.register(there))
                await watched.until(lambda: watched.ids == ["c1-1", "c2-1"])
                assert watched.views[-1].instances == (here, there)
                await first.withdraw(here)
                await watched.until(lambda: watched.ids == ["c2-1"])

    subject.run(story)


def test_what_is_another_nodes_is_neither_replaced_nor_removed(subject):
    async def story():
        async with subject.open() as one, subject.open() as two:
            async with one.registrant("n1") as first, two.registrant("n2") as second:
                mine = instance(1)
                await first.register(mine)
                with pytest.raises(Claimed, match="n1"):
                    await second.register(instance(1, node="n2"))
                with pytest.raises(ValueError, match="is node n1's"):
                    await second.register(mine)
                await second.withdraw(mine)
                await second.withdraw(instance(1, node="n2"))
                await second.leave()

                async def found():
                    return (await two.list()).instances

                await eventually(found, (mine,))
                # Once it is free, the other may have it.
                await first.withdraw(mine)
                await second.register(instance(1, node="n2"))
                await eventually(found, (instance(1, node="n2"),))

    subject.run(story)


def test_what_a_killed_node_had_goes_by_itself(subject):
    where, options = subject.where
    dying = msgspec.json.encode(instance(2, node="n2")).decode()
    program = (sys.executable, "-P", str(Path(__file__).with_name("node.py")))
    command = (*program, where, json.dumps(options), str(subject.shortest_ttl), dying)

    async def story():
        async with subject.open() as registry, Story(registry) as watched:
            async with registry.registrant("n1", subject.shortest_ttl) as alive:
                await alive.register(instance(1))
                with Popen([*ENDING_WITH_US, *command]) as process:
                    await watched.until(lambda: watched.ids == ["c1-1", "c2-1"])
                    process.kill()
                await watched.until(lambda: watched.ids == ["c1-1"])
                assert alive.problem == ""

    subject.run(story)


def test_a_nodes_next_process_takes_over_what_the_last_one_had(subject):
    async def story():
        async with subject.open() as registry, Story(registry) as watched:
            async with registry.registrant("n1", subject.shortest_ttl) as last:
                for number in (1, 2, 3):
                    await last.register(instance(number))
                await watched.until(lambda: len(watched.ids) == 3)
            async with registry.registrant("n1", subject.shortest_ttl) as following:
                await following.register(instance(1))
                await following.register(instance(2, weight=3))
                # What it does not want any more goes with the other's session, and no more.
                await watched.until(lambda: watched.ids == ["c1-1", "c2-1"])
                assert all("c1-1" in [one.id for one in view.instances] for view in
                           watched.views[watched.views.index(watched.views[-1]):])  # fmt: skip
                await following.leave()
                await watched.until(lambda: watched.ids == [])
                await following.register(instance(4))
                await watched.until(lambda: watched.ids == ["c4-1"])

    subject.run(story)


def test_a_restart_loses_nothing_and_is_told(subject):
    subject.patience = 2.5

    async def story():
        async with subject.open() as registry, registry.registrant("n1", 60) as registrant:
            await registrant.register(instance(1))
            await registrant.register(instance(2))
            async with Story(registry, "web") as watched:
                await watched.until(lambda: watched.ids == ["c1-1", "c2-1"])
                subject.stop()
                # What is asked for meanwhile is done afterwards.
                calls = (
                    registrant.register(instance(3)),
                    registrant.withdraw(instance(1)),
                    registry.list(),
                )
                said = await asyncio.gather(*calls, return_exceptions=True)
                assert [*map(type, said)] == [Unavailable] * 3
                await watched.until(lambda: watched.lost)
                assert watched.ids == ["c1-1", "c2-1"]
                assert registrant.problem
                subject.start()
                await watched.until(lambda: watched.ids == ["c2-1", "c3-1"] and not watched.lost)
                await eventually(lambda: _problem(registrant), "")

    subject.run(story)


async def _problem(registrant) -> str:
    return registrant.problem


def test_a_registry_need_not_be_there_yet(subject):
    subject.patience = 2.5

    async def story():
        async with subject.open() as registry:
            async with registry.registrant("n1") as registrant:
                await registrant.register(instance(1))
                await registrant.leave()
            subject.stop()
            async with Story(registry) as watched, registry.registrant("n1") as registrant:
                with pytest.raises(Unavailable):
                    await registrant.register(instance(1))
                await watched.until(lambda: watched.lost)
                subject.start()
                await watched.until(lambda: watched.ids == ["c1-1"] and not watched.lost)

    subject.run(story)


def test_who_was_held_for_dead_registers_again(subject):
    async def story():
        async with subject.open() as registry, Story(registry) as watched:
            async with registry.registrant("n1", subject.shortest_ttl) as registrant:
                for number in range(1, 6):
                    await registrant.register(instance(number))
                await watched.until(lambda: len(watched.ids) == 5)
                await subject.end_sessions()
                await watched.until(lambda: len(watched.ids) == 0)
                # Also what is registered before the loss is noticed.
                await registrant.register(instance(6))
                await watched.until(lambda: len(watched.ids) == 6)
                await eventually(lambda: _problem(registrant), "")

    subject.run(story)


def test_what_somebody_else_removes_comes_back(subject, monkeypatch):
    monkeypatch.setattr("cni_py.services.store_registrant._AUDIT", 0.2)

    async def story():
        async with subject.open() as registry, Story(registry) as watched:
            async with registry.registrant("n1", subject.shortest_ttl) as registrant:
                await registrant.register(instance(1))
                await registrant.register(instance(2))
                await watched.until(lambda: len(watched.ids) == 2)
                await registrant.withdraw(instance(1))
                before = len(watched.views)
                await subject.forget()
                await watched.until(lambda: watched.ids == ["c2-1"] and len(watched.views) > before)
                assert registrant.problem == ""

    subject.run(story)


def test_nonsense_of_others_is_left_out_and_harms_nobody(subject):
    async def story():
        async with subject.open() as registry, Story(registry, "web") as watched:
            async with registry.registrant("n1") as registrant:
                await registrant.register(instance(1))
                nonsense = await subject.spoil("web")
                await registrant.register(instance(2))
                await watched.until(lambda: watched.ids == ["c1-1", "c2-1"])
                await watched.until(lambda: len(watched.views[-1].left_out) == nonsense)
                view = await registry.list("web")
                assert view.instances == (instance(1), instance(2))
                assert len(view.left_out) == nonsense
                for one in view.left_out:
                    assert one.reason
                    assert one.reason.isprintable()
                await registrant.withdraw(instance(1))
                await watched.until(lambda: watched.ids == ["c2-1"])

    subject.run(story)


def test_many_instances(subject):
    async def story():
        async with subject.open() as registry, subject.open() as other:
            async with registry.registrant("n1") as registrant, Story(other, "web") as watched:
                many = [
                    replace(instance(number), id=f"c{number:04}") for number in range(subject.many)
                ]
                for first in range(0, len(many), 20):
                    await asyncio.gather(*map(registrant.register, many[first : first + 20]))
                await watched.until(lambda: len(watched.ids) == len(many))
                assert watched.views[-1].instances == tuple(many)
                await registrant.leave()
                await watched.until(lambda: not watched.ids)

    subject.run(story)


def test_the_last_word_counts_of_what_is_asked_for_at_once(subject):
    async def story():
        async with subject.open() as registry, registry.registrant("n1") as registrant:
            for last in (registrant.register, registrant.withdraw):
                forms = [instance(weight=weight) for weight in range(1, 9)]
                calls = [registrant.register(one) for one in forms]
                calls.insert(3, registrant.withdraw(forms[0]))
                await asyncio.gather(*calls, last(forms[-1]))
                wanted = (forms[-1],) if last == registrant.register else ()

                async def found():
                    return (await registry.list()).instances

                await eventually(found, wanted)

    subject.run(story)


def test_what_is_no_services_name_is_not_asked_for(subject):
    async def story():
        async with subject.open() as registry:
            for name in ("..", "a/b", "A", "a\n", "any", "\udcff"):
                with pytest.raises(ValueError, match="service"):
                    await registry.list(name)
                with pytest.raises(ValueError, match="service"):
                    await anext(registry.watch(name))

    subject.run(story)


def test_after_close_nothing_is_answered(subject):
    async def story():
        async with subject.open() as registry, Story(registry) as watched:
            await watched.until(lambda: watched.views)
            await registry.close()
            with pytest.raises(Unavailable):
                await registry.list()
            with pytest.raises(Unavailable):
                await watched.until(lambda: False)

    subject.run(story)
