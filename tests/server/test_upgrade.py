"""Upgrades and downgrades while calls come: none fails, and containers stay as they are."""

from __future__ import annotations

import json
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.builds import SITE, build
from fixtures.configs import l3
from fixtures.server import CNI_PY, Server

from .conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.calls import Outcome
    from fixtures.host import Container, Host

BIN = "/opt/cni/bin"
ROUNDS = 4

# `cni-py serve` of the build that a link leads to; the command that it stands for comes first.
SERVE = f"""import sys
sys.path[:0] = [sys.argv.pop(1), {str(SITE)!r}]
sys.argv.pop(0)
from cni_py.command import main
main()
"""


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two builds of cni-py, whose launchers differ too."""
    folder = tmp_path_factory.mktemp("builds")
    made = [build(folder / version, version) for version in ("9.9.8", "9.9.9")]
    with (folder / "9.9.9/site/cni_py/executables/cni-py-launcher").open("ab") as launcher:
        launcher.write(b"a newer one")
    return made


def call(container: Container, verb: str, result: Any = None, **env: str) -> Outcome:
    """A call of what is installed on the container's host."""
    config = l3(isGateway=True) | ({"prevResult": result} if result else {})
    environ = container.environ(verb, path=BIN) | env
    return container.host.run(f"{BIN}/bridge", stdin=json.dumps(config), env=environ, check=False)


def attached(host: Host, **env: str) -> Container:
    """A container that lives through all of it."""
    container = host.container("live")
    assert call(container, "ADD", **env).status == 0
    return container


def deleted(container: Container, **env: str) -> None:
    """It has its network to the end, and loses all of it then."""
    assert container.reaches("10.1.2.1")
    assert call(container, "DEL", **env).status == 0
    assert container.host.ports() == []


@contextmanager
def stream(host: Host, env: dict[str, str], width: int = 2) -> Iterator[list[str]]:
    """ADDs and DELs one after another while the block runs; asserts that none has failed."""
    done: list[str] = []
    failed: list[object] = []
    ended = threading.Event()

    def calls(number: int) -> None:
        container, result = host.container(f"s{number}"), None
        while not ended.is_set() and not failed:
            for verb in ("ADD", "CHECK", "DEL"):
                outcome = call(container, verb, result, **env)
                done.append(verb)
                if outcome.status:
                    failed.append((verb, outcome))
                    return
                result = outcome.json if verb == "ADD" else result

    threads = [threading.Thread(target=calls, args=(one,)) for one in range(width)]
    for one in threads:
        one.start()
    try:
        yield done
    finally:
        ended.set()
        for one in threads:
            one.join(60)
    assert failed == []


def more(done: list[str]) -> None:
    """Wait until calls have been made since."""
    before = len(done)
    until(lambda: len(done) >= before + 4)


@pytest.mark.slow
def test_standalone(host: Host, builds: list[str]) -> None:
    """Up and down, in turn."""
    env = {"CNI_PY_SOCKET": ""}
    host.run(builds[0], "install")
    live = attached(host, **env)
    with stream(host, env) as done:
        for number in range(ROUNDS):
            host.run(builds[1 - number % 2], "install")
            more(done)
    assert len(done) > 8
    deleted(live, **env)


@pytest.mark.slow
def test_with_the_server(host: Host, builds: list[str], tmp_path: Path) -> None:
    """The server is executed anew after each installation, and is the new one then."""
    current = tmp_path / "current"
    switch(current, builds[0])
    host.run(builds[0], "install")
    script = tmp_path / "serve.py"
    script.write_text(SERVE)
    host.stop_serving()
    through = [sys.executable, str(script), str(current)]
    server = Server(host.prefix, "--idle-workers", "2", through=through)
    host.server = server
    live = attached(host)
    with stream(host, {}) as done:
        for number in range(ROUNDS):
            wanted = builds[1 - number % 2]
            switch(current, wanted)
            host.run(wanted, "install", *(("--launcher-only",) if number == 1 else ()))
            seen = len(server.lines)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(lambda line: line["event"] == "listening", seen)
            more(done)
    assert Path(wanted).parents[1].name in server.metrics()
    deleted(live)


def switch(link: Path, cni_py: str) -> None:
    """Have the link lead to a build's modules."""
    new = link.with_suffix(".new")
    new.symlink_to(Path(cni_py).parents[1] / "site")
    new.replace(link)


def test_stay_after_uninstall(host: Host, builds: list[str]) -> None:
    """Containers live on without executables, and those that come again delete them."""
    env = {"CNI_PY_SOCKET": ""}
    host.run(CNI_PY, "install")
    live = attached(host, **env)
    host.run(builds[0], "install")
    host.run(CNI_PY, "uninstall")
    assert live.reaches("10.1.2.1")
    host.run(CNI_PY, "install")
    deleted(live, **env)
