"""The asyncio form: many at once, and a cancelled task whose plugin has ended."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest

from cni_py.runtime import Network, Parameters, PluginError, Runtime, aio, parse_network
from fixtures.recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

C1 = Parameters("c1", "/run/netns/none-such")
_SECONDS = 20
# Says who it is, takes SIGTERM as a real plugin does, and has no other process.
HANGING = """echo $$ > $folder/pid
trap 'echo undone >> $folder/undone; exit 1' TERM
: > $folder/began
while :; do read -r line < $folder/never || :; done"""


@pytest.fixture
def plugins(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path, "a", "b")


@pytest.fixture
def runtime(plugins: Recorder) -> aio.Runtime:
    cache = str(plugins.folder / "cache")
    return aio.Runtime(Runtime((str(plugins.path),), cache_folder=cache))


@pytest.fixture
def network() -> Network:
    listed = [{"type": "a"}, {"type": "b"}]
    return parse_network(
        json.dumps({"cniVersion": "1.1.0", "name": "net", "plugins": listed}).encode()
    )


def test_every_method(runtime: aio.Runtime, network: Network, plugins: Recorder) -> None:
    async def everything() -> None:
        attached = await runtime.add(network, C1)
        assert attached.result.interfaces[0].name == "b"
        await runtime.check(network, C1)
        await runtime.status(network)
        assert await runtime.validate(network) == frozenset()
        assert await runtime.supported("a") == ("0.4.0", "1.0.0", "1.1.0")
        assert (await runtime.negotiated(network)).version == "1.1.0"
        assert len(await runtime.gc(network, [])) == 1
        await runtime.delete(network, C1)
        plugins.answer("a", "ADD", "exit 1")
        with pytest.raises(PluginError):
            await runtime.add(network, C1)

    asyncio.run(everything())


def test_many_at_once(runtime: aio.Runtime, network: Network, plugins: Recorder) -> None:
    """None waits for another: each is in its plugin while all the others are."""
    count = 12
    waiting = "touch $folder/in.$CNI_CONTAINERID; "
    waiting += (
        f"while [ $(ls $folder | grep -c '^in') -lt {count} ]; do sleep 0.05; done; echo '{{}}'"
    )
    plugins.answer("a", "ADD", waiting)

    async def attach() -> None:
        who = [Parameters(f"c{number}", "/ns") for number in range(count)]
        async with asyncio.timeout(_SECONDS):
            await asyncio.gather(*(runtime.add(network, one) for one in who))

    asyncio.run(attach())
    assert len(runtime.sync.attachments().attachments) == count


@pytest.mark.parametrize("undo", [False, True])
def test_cancelled(runtime: aio.Runtime, network: Network, plugins: Recorder, undo: bool) -> None:
    """When CancelledError comes out the plugin has ended, by itself, and the DELs have run."""
    os.mkfifo(plugins.folder / "never")
    plugins.answer("b", "ADD", HANGING)

    async def cancelled() -> None:
        task = asyncio.create_task(runtime.add(network, C1, undo=undo))
        async with asyncio.timeout(_SECONDS):
            while not (plugins.folder / "began").exists():
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pid = int((plugins.folder / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    asyncio.run(cancelled())
    assert (plugins.folder / "undone").exists()
    assert plugins.calls == ["a ADD", "b ADD", *(["b DEL", "a DEL"] if undo else [])]
    assert runtime.sync.attachments().attachments == ()


def test_timeout(runtime: aio.Runtime, network: Network, plugins: Recorder) -> None:
    os.mkfifo(plugins.folder / "never")
    plugins.answer("a", "STATUS", HANGING)

    async def hurried() -> None:
        async with asyncio.timeout(0.5):
            await runtime.status(network)

    with pytest.raises(TimeoutError):
        asyncio.run(hurried())
    assert plugins.calls == ["a STATUS"]
