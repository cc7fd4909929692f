"""Many health checks at once."""

from __future__ import annotations

import asyncio
from collections import Counter

from cni_py.services.checking import Checking, Target
from cni_py.services.declaration import Check

from .servers import HOST, saying, serving, silent

OK, BAD = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503\r\n"
FAST = Check(type="http", interval_seconds=0.1, timeout_seconds=2, rise=2, fall=2)


class Seen:
    """What has been told, and a way to wait for it."""

    def __init__(self, inherited: frozenset[str] = frozenset(), most_at_once: int = 0) -> None:
        self.told: list[tuple[str, bool, str]] = []
        self._changed = asyncio.Event()
        self.checking = Checking(self._tell, inherited, most_at_once)

    def _tell(self, key: str, healthy: bool, why: str) -> None:
        self.told.append((key, healthy, why))
        self._changed.set()

    async def until(self, check) -> None:
        async with asyncio.timeout(30):
            while not check():
                self._changed.clear()
                await self._changed.wait()


def test_healthy_failing_and_back() -> None:
    answer = [BAD]

    async def talk(reader, writer) -> None:
        await saying(answer[0])(reader, writer)

    async def story():
        seen = Seen()
        async with serving(talk) as port:
            seen.checking.want({"a": Target(HOST, port, FAST), "b": Target(HOST, port, None)})
            # Without a check it is taken to answer.
            assert seen.checking.healthy == {"b"}
            for answer[0], healthy in ((OK, True), (BAD, False), (OK, True)):
                before = len(seen.told)
                await seen.until(lambda known=before: len(seen.told) > known)
                assert ("a" in seen.checking.healthy) is healthy
            await seen.checking.close()
        return seen.told

    told = asyncio.run(story())
    assert told == [("a", True, ""), ("a", False, "status 503"), ("a", True, "")]


def test_what_is_not_wanted_any_more() -> None:
    """Its end is no failure; another check of the same begins with what is known."""

    async def story():
        seen = Seen()
        async with serving(saying(OK)) as port:
            seen.checking.want({"a": Target(HOST, port, FAST)})
            await seen.until(lambda: seen.told)
            slow = Check(type="http", interval_seconds=3600)
            seen.checking.want({"a": Target(HOST, port, slow)})
            assert seen.checking.healthy == {"a"}
            seen.checking.want({})
            assert seen.checking.healthy == frozenset()
            await seen.checking.close()
        return seen.told

    assert asyncio.run(story()) == [("a", True, "")]


def test_inherited() -> None:
    """What an earlier agent saw healthy is so until checks say otherwise; others are not."""

    async def story():
        seen = Seen(frozenset({"a", "gone"}))
        async with serving(saying(BAD)) as port:
            both = {key: Target(HOST, port, FAST) for key in ("a", "b")}
            seen.checking.want(both)
            assert seen.checking.healthy == {"a"}
            await seen.until(lambda: seen.told)
            # What was gone in between begins anew.
            seen.checking.want({**both, "gone": Target(HOST, port, FAST)})
            assert seen.checking.healthy == frozenset()
            await seen.checking.close()
        return seen.told

    assert asyncio.run(story()) == [("a", False, "status 503")]


def test_thousands_of_which_most_hang() -> None:
    """Those that answer are found among 1,000 that do not; the loop goes on meanwhile."""

    async def story():
        seen = Seen(most_at_once=100)
        hanging = Check(type="http", interval_seconds=0.1, timeout_seconds=0.1)
        quick = Check(type="http", interval_seconds=0.1, timeout_seconds=5)
        turns = 0

        async def turning() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        async with serving(silent) as deaf, serving(saying(OK)) as port:
            turner = asyncio.create_task(turning())
            targets = {f"deaf{one}": Target(HOST, deaf, hanging) for one in range(1000)}
            targets |= {f"good{one}": Target(HOST, port, quick) for one in range(20)}
            seen.checking.want(targets)
            await seen.until(lambda: len(seen.checking.healthy) == 20)
            await seen.checking.close()
            turner.cancel()
        return turns, Counter(healthy for _, healthy, _ in seen.told)

    turns, told = asyncio.run(story())
    assert told == {True: 20}
    # Ten times all of the room was taken.
    assert turns > 10
