"""`cni-py agent` on the command line: the network's configuration, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cni_py.cluster.pools import PREFIX, Part, encode
from cni_py.cluster.sqlite import Sqlite
from cni_py.cluster.store import Put
from fixtures.agents import COMMAND
from fixtures.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}


def run(
    *words: str, status: int = 0, stdin: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMMAND, "agent", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONSAFEPATH": "1", **env},
    )
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    return done


def test_the_configuration_is_examined_set_and_printed(tmp_path: Path) -> None:
    store = f"--store=sqlite:{tmp_path}/state/store.db"
    text = json.dumps(CONFIG)
    assert "has no /coreos.com/network/config" in run(store, "config", "get", status=1).stderr
    said = run(store, "config", "set", "-", stdin=text).stdout
    assert said == (
        "/coreos.com/network/config is set: 10.244.0.0/16, 255 subnets of /24, by vxlan\n"
    )
    assert run(store, "config", "get").stdout == f"{text}\n"
    # The prefix is of the store's options; the variable is flannel's.
    run("config", "get", status=1, CNI_PY_AGENT_STORE=store[8:], FLANNELD_ETCD_PREFIX="/other")
    assert run("config", "get", CNI_PY_AGENT_STORE=store[8:]).stdout == f"{text}\n"


def test_a_pool_is_set_looked_at_and_not_taken_from_nodes(tmp_path: Path) -> None:
    path = f"{tmp_path}/state/store.db"
    store = f"--store=sqlite:{path}"
    text = json.dumps({"network": "10.50.0.0/16", "gateway": "10.50.0.1"})
    wrong = "has no /cni-py/pools/lan/config"
    assert wrong in run(store, "pool", "get", "lan", status=1).stderr
    assert "no such pool" in run(store, "pool", "show", "lan", status=1).stderr
    said = run(store, "pool", "set", "lan", "-", stdin=text).stdout
    assert said == "/cni-py/pools/lan/config is set: 10.50.0.0/16, blocks of /26\n"
    assert run(store, "pool", "get", "lan").stdout == f"{text}\n"

    async def claim() -> None:
        async with Sqlite(path) as opened:
            below = f"{PREFIX}/lan/"
            part = encode((Part("10.50.1.0/26", "n1"),))
            puts = [Put(f"{below}nodes/n1", b""), Put(f"{below}blocks/10.50.1.0-26", part)]
            await opened.transact((), [*puts, Put(f"{below}wants/n2", b"")])

    asyncio.run(claim())
    shown = run(store, "pool", "show", "lan")
    assert shown.stdout.splitlines()[0] == (
        "lan: 10.50.0.0/16, blocks of /26; 65469 of 65533 addresses are no node's"
    )
    assert shown.stdout.split()[-4:] == ["n1", "alive", "64", "10.50.1.0/26"]
    assert shown.stderr == "n2 waits for addresses\n"
    told = json.loads(run(store, "pool", "show", "lan", "--json").stdout)
    assert [one["node"] for one in told["nodes"]] == ["n1"]
    # What is a node's stays one of the pool's blocks.
    wider = json.dumps({"network": "10.48.0.0/14", "blockLength": 26})
    run(store, "pool", "set", "lan", "-", stdin=wider)
    other = json.dumps({"network": "10.48.0.0/14", "blockLength": 25})
    said = run(store, "pool", "set", "lan", "-", stdin=other, status=1).stderr
    assert "blocks/10.50.1.0-26 would be no block of the pool" in said
    assert "nothing was changed" in said
    assert run(store, "pool", "get", "lan").stdout == f"{wider}\n"
    run(store, "pool", "set", "--force", "lan", "-", stdin=other)
    assert "10.50.1.0-26: it is no block" in run(store, "pool", "show", "lan").stderr


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({}, "missing required field `network`"),
        ({"network": "10.50.0.1/16"}, "has host bits set"),
        ({"network": "10.0.0.0/8", "blockLength": 30}, "more than 65536 blocks"),
        ({"network": "10.50.0.0/16", "gateway": "10.51.0.1"}, "10.51.0.1 is not in"),
        ({"network": "10.50.0.0/16", "blocklength": 26}, "unknown field `blocklength`"),
        ([], "Expected `object`"),
    ],
)
def test_a_pool_that_no_node_could_use_is_refused(config: Any, wrong: str, tmp_path: Path) -> None:
    store = f"--store=sqlite:{tmp_path}/store.db"
    said = run(store, "pool", "set", "lan", "-", status=2, stdin=json.dumps(config)).stderr
    assert wrong in said
    assert not (tmp_path / "store.db").exists()


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({}, "Network is missing"),
        (CONFIG | {"SubnetLen": 31}, "SubnetLen is 31"),
        (CONFIG | {"Backend": {"Type": "smoke"}}, "its Type is 'smoke'"),
        (CONFIG | {"Backend": {"Type": "vxlan", "VNI": "one"}}, "Backend cannot be used"),
        ("nonsense", "config"),
    ],
)
def test_a_configuration_that_no_agent_could_use_is_refused(config: Any, wrong: str) -> None:
    said = run("config", "check", "-", status=2, stdin=json.dumps(config)).stderr
    assert wrong in said


@pytest.mark.parametrize(
    ("words", "status", "wrong"),
    [
        (("--store=redis:x", "config", "get"), 2, "is not sqlite:PATH"),
        (("--etcd-endpoints=nowhere", "config", "get"), 2, "is no endpoint"),
        (("--etcd-prefix=x", "config", "get"), 2, "does not begin with /"),
        (("--etcd-username=me", "config", "get"), 2, "a user needs a password"),
        (("--etcd-cafile=/nowhere", "--etcd-endpoints=https://127.0.0.1:1", "config", "get"), 1,
            "/nowhere: No such file"),
        (("--iface-regex=(", "config", "get"), 2, "no regular expression"),
        (("--public-ip=fd00::1", "config", "get"), 2, "--public-ip"),
        (("--lease-ttl=0", "config", "get"), 2, "--lease-ttl"),
        (("status", "--network=../x"), 2, "letters, digits"),
        (("--pool=../x",), 2, "--pool '../x'"),
        (("--subnet-from=pod-cidr", "--node="), 2, "give --node or NODE_NAME"),
        (("--subnet-from=pod-cidr", "--node=a", "--subnet=10.1.0.0/24"), 2, "one of them"),
        (("--subnet-from=pod-cidr", "--node=a"), 1, "only a container in a pod"),
        (("pool", "get", "../x"), 2, "NAME '../x': letters"),
        (("status", "--socket=/nowhere"), 1, "no agent of the network default listens there"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_in_one_line(
    words: tuple[str, ...], status: int, wrong: str
) -> None:
    assert wrong in run(*words, status=status).stderr


def test_tls_certificates_and_a_user(clusters, tmp_path: Path) -> None:
    authority = Authority.made(tmp_path / "ca")
    (server, server_key), (client, client_key) = authority.sign("server"), authority.sign("client")
    options = [
        f"--cert-file={server}", f"--key-file={server_key}", "--client-cert-auth",
        f"--trusted-ca-file={authority.ca}",
    ]  # fmt: skip
    cluster = clusters(options=options, secure=True)
    tls = (
        f"--cacert={authority.ca}", f"--cert={client}", f"--key={client_key}"
    )  # fmt: skip
    for words in ("user add root:secret", "user grant-role root root", "auth enable"):
        cluster.ctl(*tls, *words.split())
    password = tmp_path / "password"
    password.write_text("secret\n")
    place = (
        f"--etcd-endpoints={cluster.access().endpoints[0]}", f"--etcd-cafile={authority.ca}",
        f"--etcd-certfile={client}", f"--etcd-keyfile={client_key}",
    )  # fmt: skip
    user = ("--etcd-username=root", f"--etcd-password-file={password}")
    run(*place, *user, "config", "set", "-", stdin=json.dumps(CONFIG))
    assert json.loads(run(*place, *user, "config", "get").stdout) == CONFIG
    password.write_text("wrong\n")
    assert "secret" not in run(*place, *user, "config", "get", status=1).stderr


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--no-subnet"], "--no-subnet leaves nothing to do"),
        (["--services", "--services-domain=a..b"], "'a..b' is no domain"),
        (["--services", "--services-path=/a/b"], "'/a/b' is not /skydns"),
        (["--services", "--registry=zookeeper:x"], "'zookeeper:x' is not consul:URL"),
        (["--services", "--registry=consul:ftp://x"], "ftp://x"),
        (["--services", "--services-ttl=1"], "--services-ttl"),
    ],
)
def test_services_that_cannot_be_kept(words: list[str], wrong: str) -> None:
    done = subprocess.run(
        [COMMAND, "agent", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 2
    assert wrong in done.stderr
    assert "Traceback" not in done.stderr
