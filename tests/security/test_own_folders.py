"""What we make is its owner's alone, and what is somebody else's is not used."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.dhcp import background
from fixtures.host import BIN, refusal
from fixtures.server import CNI_PY, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.host import Container, Host

NOBODY = "65534"
CHAIN: tuple[dict[str, Any], ...] = (
    l3(ipMasq=True),
    {
        "type": "portmap",
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]},
    },
    {"type": "firewall", "backend": "nftables", "ingressPolicy": "isolated"},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400},
)


def configs(result: Any = None) -> Iterator[dict[str, Any]]:
    """The chain's configurations; `result` is what the first has answered."""
    for one in CHAIN:
        yield {"cniVersion": "1.1.0", "name": "net1", **one} | (
            {"prevResult": result} if result else {}
        )


def under(host: Host, umask: str, verb: str, config: Any, container: Container) -> str:
    """The call of an executable that a process with that umask starts; it must succeed."""
    command = f"umask {umask}; exec {shlex.quote(str(BIN / config['type']))}"
    environ = container.environ(verb) | {"CNI_PY_SOCKET": ""}
    return host.run("sh", "-c", command, stdin=json.dumps(config), env=environ).stdout


def modes(host: Host) -> dict[str, int]:
    """The mode of everything that there is in the folders of state, but of links."""
    listed = host.run(
        *("find", "/run", "/var/lib/cni", "-path", "/run/layers", "-prune"),
        *("-o", "-path", "/run/netns", "-prune", "-o", "!", "-type", "l", "-printf", "%y%m %p\n"),
    ).stdout
    lines = [line.split(" ", 1) for line in listed.splitlines()]
    return {f"{mode[0]} {name}": int(mode[1:], 8) for mode, name in lines}


def wrong(found: dict[str, int]) -> dict[str, str]:
    """What others may write to, or its owner may not use."""
    own = {"d": 0o700, "f": 0o400, "s": 0o600}
    return {
        name: f"{mode:04o}"
        for name, mode in found.items()
        if mode & 0o7022 or mode & own[name[0]] != own[name[0]]
    }


@pytest.mark.parametrize("umask", ["0", "0777", "022"])
def test_modes_of_what_calls_make(host: Host, umask: str) -> None:
    """Whatever the runtime's umask: the folders above ours too, which have no mode of their own."""
    container = host.container()
    before = modes(host)
    result = json.loads(under(host, umask, "ADD", next(configs()), container))
    for one in list(configs(result))[1:]:
        under(host, umask, "ADD", one, container)
    made = {name: mode for name, mode in modes(host).items() if name not in before}
    for one in reversed(list(configs(result))):
        under(host, umask, "DEL", one, container)
    folders = {name.split()[1] for name in made if name.startswith("d")}
    assert folders > {"/run/cni-py", "/run/cni-py/portmap", "/run/cni-py/firewall", "/run/cni"}
    assert wrong(made) == {}
    left = {name: mode for name, mode in modes(host).items() if name not in before}
    assert wrong(left) == {}


@pytest.mark.parametrize("umask", ["0", "0777"])
def test_modes_of_what_daemons_make(host: Host, umask: str) -> None:
    """The sockets of both, and what a call leaves that the server has served."""
    before = modes(host)
    through = ["sh", "-c", f'umask {umask}; exec "$@"', "sh"]
    host.stop_serving()
    host.server = Server(host.prefix, through=through)
    daemon = background([*host.prefix, *through, f"{BIN}/dhcp", "daemon"])
    daemon.wait_for(lambda line: line["event"] == "listening")
    container = host.container()
    host.add("bridge", l3(ipMasq=True), container)
    made = {name: mode for name, mode in modes(host).items() if name not in before}
    host.delete("bridge", l3(ipMasq=True), container)
    daemon.stop()
    sockets = {name: oct(mode) for name, mode in made.items() if name.startswith("s")}
    assert sockets == dict.fromkeys(
        ("s /run/cni-py/cni.sock", "s /run/cni-py/metrics.sock", "s /run/cni/dhcp.sock"), "0o600"
    )
    assert wrong(made) == {}


@pytest.mark.parametrize("folder", ["/run/cni-py", "/var/lib/cni/cni-py"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (f"mkdir {{0}}; chown {NOBODY} {{0}}", f"belongs to user {NOBODY}"),
        ("mkdir {0}; chmod 0777 {0}", "can be written by others: its mode is 0777"),
        ("mkdir {0}; chmod 1777 {0}", "can be written by others: its mode is 1777"),
        ("mkdir /run/theirs; ln -s /run/theirs {0}", "is not a folder"),
        ("mkfifo {0}", "is not a folder"),
    ],
)
def test_a_folder_that_was_there_before(host: Host, folder: str, make: str, said: str) -> None:
    """Nothing is done with it, nothing is written to where it leads; it says how to go on."""
    host.stop_serving()
    host.run("sh", "-c", f"rm -rf {folder}; {make.format(folder)}")
    container = host.container()
    before = host.run("find", "/run", "/var/lib/cni").stdout
    for verb in ("ADD", "CHECK", "DEL", "GC", "STATUS"):
        config = l3(prevResult={"cniVersion": "1.1.0", "ips": []})
        if verb == "GC":
            config["cni.dev/valid-attachments"] = []
        error = refusal(host.call("bridge", verb, config, container))
        assert (error["code"], error["msg"]) == (5, f"{folder} {said}"), verb
        assert f"chown root:root {folder}" in error["details"]
    assert host.run("find", "/run", "/var/lib/cni").stdout == before
    assert host.ports() == []
    # Once it is mended calls go on.
    host.run("rm", "-rf", folder)
    host.add("bridge", l3(), container)


def test_a_socket_in_a_folder_of_somebody_else(host: Host) -> None:
    """Neither server nor DHCP daemon listens where another can put a socket in its place."""
    host.stop_serving()
    host.run("sh", "-c", f"rm -rf /run/cni-py; mkdir /run/theirs; chown {NOBODY} /run/theirs")
    for command, path in (
        ([CNI_PY, "serve", "--socket"], "/run/theirs/cni.sock"),
        ([f"{BIN}/dhcp", "daemon", "-socketpath"], "/run/theirs/dhcp.sock"),
    ):
        done = host.run("timeout", "20", *command, path, check=False)
        assert done.status == 1
        assert f"/run/theirs belongs to user {NOBODY}" in done.stderr
        assert "Traceback" not in done.stderr
    assert host.run("find", "/run/theirs", "-type", "s").stdout == ""


@pytest.mark.parametrize("kind", ["regular", "link", "folder"])
def test_what_is_no_socket_is_not_replaced(host: Host, kind: str) -> None:
    """A mistyped path of a socket costs no file."""
    host.stop_serving()
    make = {
        "regular": "echo precious > /run/own/path",
        "link": "echo precious > /run/precious; ln -s /run/precious /run/own/path",
        "folder": "mkdir /run/own/path",
    }
    host.run("sh", "-c", f"mkdir -p /run/own; {make[kind]}")
    before = host.run("ls", "-lR", "/run/own").stdout
    for command in (
        [CNI_PY, "serve", "--metrics-socket", "/run/own/m.sock", "--socket"],
        [f"{BIN}/dhcp", "daemon", "-socketpath"],
    ):
        done = host.run("timeout", "20", *command, "/run/own/path", check=False)
        assert done.status == 1
        assert "Address already in use" in done.stderr
    assert host.run("ls", "-lR", "/run/own").stdout == before
