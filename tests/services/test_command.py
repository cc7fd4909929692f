"""`cni-py services`, as it is installed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from fixtures.agents import COMMAND
from fixtures.etcd import ENDING_WITH_US

from .subjects import InConsul, instance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .subjects import Subject

_FOREIGN = ("FLANNELD_", "CNI_PY_AGENT_")
_ENV = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
_ENV |= {"PYTHONSAFEPATH": "1", "COLUMNS": "200"}


def run(*words: str, status: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMMAND, "services", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=_ENV | env,
    )
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    return done


@contextmanager
def watching(*words: str) -> Iterator[subprocess.Popen[str]]:
    """`watch` as a process, which is interrupted in the end."""
    process = subprocess.Popen(
        [*ENDING_WITH_US, COMMAND, "services", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_ENV,
    )
    try:
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read().strip() == ""
    finally:
        process.kill()
        process.communicate()


def _register(subject: Subject, *given) -> None:
    async def story() -> None:
        async with subject.open() as registry, registry.registrant("n1", 300) as registrant:
            for one in given:
                await registrant.register(one)

    asyncio.run(story())


def _withdraw(subject: Subject, *given) -> None:
    async def story() -> None:
        async with subject.open() as registry, registry.registrant("n1", 300) as registrant:
            for one in given:
                await registrant.withdraw(one)

    asyncio.run(story())


@pytest.fixture
def place(subject: Subject, tmp_path: Path) -> list[str]:
    """The options that say where the subject is."""
    if isinstance(subject, InConsul):
        token = tmp_path / "token"
        token.write_text("s3cret\n")
        return [f"--registry={subject.where[0]}", f"--consul-token-file={token}"]
    where, options = subject.where
    domain = f"--services-domain={options['domain']}"
    kind, _, place = where.partition(":")
    return [f"--store={where}" if kind == "sqlite" else f"--etcd-endpoints={place}", domain]


def test_instances_are_listed(subject, place):
    db = instance(3, service="db", addresses=("10.1.0.2", "fd00::2"), protocol="udp", port=5432)
    _register(subject, instance(1, metadata={"version": "[/2]"}, weight=3), instance(2), db)
    listed = run(*place).stdout.splitlines()
    assert listed[0].split() == [
        "SERVICE", "INSTANCE", "WHERE", "WEIGHT", "NODE", "NETWORK", "METADATA"]  # fmt: skip
    assert [line.split()[:2] for line in listed[1:]] == [
        ["db", "c3-1"], ["web", "c1-1"], ["web", "c2-1"]]  # fmt: skip
    assert "10.1.0.2:5432/udp [fd00::2]:5432/udp" in listed[1]
    assert listed[2].split()[3:] == ["3", "n1", "containers", "version=[/2]"]
    assert len(run(*place, "list", "web").stdout.splitlines()) == 3
    found = json.loads(run(*place, "list", "--json").stdout)
    assert found["leftOut"] == []
    assert found["instances"][0] == {
        "service": "db", "id": "c3-1", "node": "n1", "network": "containers",
        "addresses": ["10.1.0.2", "fd00::2"], "port": 5432, "protocol": "udp", "weight": 1,
        "metadata": {},
    }  # fmt: skip
    said = run(*place, "list", "mail", status=1).stderr
    assert said == "cni-py services: service 'mail' has no healthy instance\n"


def test_what_is_left_out_is_said_with_the_reason(subject, place):
    asyncio.run(subject.spoil("web"))
    done = run(*place)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "cni-py services list: there is no healthy instance of any service"
    assert all("is left out: " in one for one in lines[1:])
    assert len(lines) > 8
    found = json.loads(run(*place, "list", "web", "--json", status=1).stdout)
    assert all(one["key"] and one["reason"] for one in found["leftOut"])


def test_changes_are_told_as_they_come(subject, place):
    _register(subject, instance(1))
    with watching(*place, "watch", "web") as told, watching(*place, "watch", "--json") as every:
        first = "added web c1-1 10.0.0.1:8080/tcp node n1\n"
        assert told.stdout.readline() == first
        assert json.loads(every.stdout.readline())["instance"]["id"] == "c1-1"
        _register(subject, instance(2))
        assert told.stdout.readline().startswith("added web c2-1 ")
        assert json.loads(every.stdout.readline())["change"] == "added"
        _register(subject, instance(2, weight=5))
        assert told.stdout.readline().startswith("changed web c2-1 ")
        assert json.loads(every.stdout.readline())["instance"]["weight"] == 5
        _withdraw(subject, instance(1))
        assert told.stdout.readline().startswith("removed web c1-1 ")
        gone = json.loads(every.stdout.readline())
        assert (gone["change"], gone["instance"]["id"]) == ("removed", "c1-1")


@pytest.mark.parametrize(
    ("words", "status", "wrong"),
    [
        (("--registry=etcd:x",), 2, "is not consul:URL"),
        (("--registry=consul:nowhere",), 2, "is no http"),
        (("--store=redis:x",), 2, "is not sqlite:PATH"),
        (("--etcd-endpoints=nowhere",), 2, "is no endpoint"),
        (("--services-domain=No",), 2, "is no domain"),
        (("--services-path=/a/b",), 2, "is not /skydns"),
        (("list", "No"), 2, "no DNS label"),
        (("watch", "../x"), 2, "no DNS label"),
        (("--consul-token-file=/none", "--registry=consul:http://127.0.0.1:1"), 1, "/none"),
        (("--store=sqlite:/none/store.db",), 1, "/none/store.db: No such file"),
    ],
)
def test_what_cannot_be_is_refused(words, status, wrong):
    done = run(*words, status=status)
    assert wrong in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_what_others_could_read_is_warned_of(consul):
    # This machine, but by no address that says so.
    url = consul.url.replace("127.0.0.1", "0.0.0.0")
    said = run("list", "web", status=1, CNI_PY_AGENT_REGISTRY=f"consul:{url}").stderr.splitlines()
    assert said[0] == (
        "cni-py services: others on the way can read and change what is said to Consul: use https"
    )
    assert "403 Permission denied" in said[1]
