"""`cni-py demo`: two containers get a network and talk, step by step, on a host of their own.

The plugins are run as a container runtime runs them: environment, JSON on stdin.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from cni_py.installation.package import conf

from .group import Failed
from .output import console, json_option, need_root, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_EXECUTABLES = "/opt/cni/bin"
_CONFLIST = "10-bridge.conflist"
_COMMANDS = ("ip", "mount", "nsenter")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PORT = 8080
_SECONDS = 10.0
# It ends with the process that started it, whatever ends that: its standard input is closed then.
_SERVE = f"""
import os, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

class Pong(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ping" else 404)
        self.end_headers()
        self.wfile.write(b"pong\\n")

    def log_message(self, *arguments):
        pass

server = HTTPServer(("", {_PORT}), Pong)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
"""
_GET = (
    "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end='')"
)


class Step(msgspec.Struct, frozen=True):
    """One step: what is done, and the lines that it gave."""

    title: str
    lines: tuple[str, ...]


class Demonstration(msgspec.Struct, frozen=True):
    """The answer with --json: every step, and what the containers have left behind."""

    steps: tuple[Step, ...]
    left: tuple[str, ...]


class _Container(NamedTuple):
    id: str
    netns: str

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return _run("nsenter", f"--net={self.netns}", "--", *command, check=check)


@click.command()
@json_option
def demo(*, as_json: bool) -> None:
    """Show the main job: two containers on a bridge, a request, CHECK, DEL, and nothing left.

    All of it happens in a network namespace and with state folders of its own: nothing of this
    machine's network or files changes, also when it is interrupted.
    """
    need_root("demo")
    os.environ["PATH"] = _SYSTEM_PATH
    missing = [one for one in _COMMANDS if shutil.which(one) is None]
    if missing:
        raise Failed(f"not installed: {', '.join(missing)} (packages iproute2, mount, util-linux)")
    conflist = (conf() / _CONFLIST).read_text()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    from cni_py.installation import Installation, Root, executables, install
    from cni_py.kernel.throwaway import become_throwaway_host

    become_throwaway_host()
    files = tuple(executables(_EXECUTABLES, Root()))
    install(Installation(_EXECUTABLES, Root(), files))
    show = _silent if as_json else _printer()
    steps = []
    left: tuple[str, ...] = ()
    for step, found in _walk(conflist):
        show(step)
        steps.append(step)
        left += found
    if as_json:
        print_json(Demonstration(tuple(steps), left))
    if left:
        raise Failed("the containers have left something behind: this is a defect of cni-py")


def _walk(text: str) -> Iterator[tuple[Step, tuple[str, ...]]]:
    """Each step, with what is left of the containers at that time if it was looked for."""
    conflist = json.loads(text)
    yield _step(f"The network, as an operator writes it: {_CONFLIST}", text), ()

    web, client = _container("web"), _container("client")
    title = "Two containers: network namespaces with nothing but a loopback interface"
    yield _step(title, web.run("ip", "-brief", "address").stdout), ()

    results = [_call(conflist, "ADD", one) for one in (web, client)]
    title = "ADD: the runtime runs the plugin for each of them; the result is what it gets back"
    also = f"and {client.id}: {', '.join(one['address'] for one in results[1]['ips'])}"
    yield _step(title, json.dumps(results[0], indent=2), also), ()

    title = "What the host has now: a bridge with the gateways' addresses, one port a container"
    yield _step(title, _run("ip", "-brief", "address").stdout), ()

    address = results[0]["ips"][0]["address"].split("/")[0]
    answer = _request(web, client, address)
    title = f"An HTTP server in {web.id}, and a request from {client.id}"
    yield _step(title, f"GET http://{address}:{_PORT}/ping", f"-> {answer}"), ()

    attached = list(zip((web, client), results, strict=True))
    for container, result in attached:
        _call(conflist, "CHECK", container, result)
    title = "CHECK: is everything still as ADD left it?"
    yield _step(title, *(f"{one.id}: yes" for one in (web, client))), ()

    for container, result in attached:
        _call(conflist, "DEL", container, result)
    title = "DEL: the runtime takes both down"
    yield _step(title, *(f"{one.id}: done" for one in (web, client))), ()

    left = tuple(_left(conflist["name"]))
    title = "What is left of the containers: links, firewall rules, allocations"
    text = _run("ip", "-brief", "address").stdout
    yield _step(title, *(left or ("nothing",)), text, "The bridge stays."), left


def _container(name: str) -> _Container:
    _run("ip", "netns", "add", name)
    return _Container(f"container-{name}", f"/run/netns/{name}")


def _call(conflist: dict[str, Any], verb: str, container: _Container, result: Any = None) -> Any:
    """One verb for one container, as a runtime derives it from the list. Raises Failed."""
    (plugin,) = conflist["plugins"]
    config = plugin | {key: conflist[key] for key in ("cniVersion", "name")}
    if result is not None:
        config["prevResult"] = result
    environ = {
        "PATH": _SYSTEM_PATH,
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container.id,
        "CNI_NETNS": container.netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": _EXECUTABLES,
    }
    text = json.dumps(config)
    done = _run(f"{_EXECUTABLES}/{plugin['type']}", check=False, input=text, env=environ)
    if done.returncode != 0:
        error = json.loads(done.stdout)
        details = f" ({error['details']})" if error.get("details") else ""
        raise Failed(f"{verb} of {container.id} failed: {error['msg']}{details}")
    return json.loads(done.stdout) if done.stdout else None


def _request(web: _Container, client: _Container, address: str) -> str:
    """Have `web` serve, and give the answer that `client` gets to GET /ping. Raises Failed."""
    serving = ("nsenter", f"--net={web.netns}", "--", sys.executable, "-I", "-c", _SERVE)
    server = subprocess.Popen(serving, stdin=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + _SECONDS
        url = f"http://{address}:{_PORT}/ping"
        while True:
            answer = client.run(sys.executable, "-I", "-c", _GET, url, check=False)
            if answer.returncode == 0:
                return answer.stdout.strip()
            if time.monotonic() > deadline or server.poll() is not None:
                reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise Failed(f"no answer from {address}: {reason}")
    finally:
        server.communicate(b"")


def _left(network: str) -> Iterator[str]:
    """Each resource that belongs to an attachment and is still there."""
    from cni_py.kernel import links
    from cni_py.kernel.netlink import Netlink
    from cni_py.kernel.nftables import nftables_if_installed

    with Netlink() as host:
        for link in links.dump(host):
            if link.kind in ("veth", "ifb"):
                yield f"link {link.name} ({link.alias or 'no label'})"
    nft = nftables_if_installed()
    listed = nft.listed("list the rules", {"list": {"ruleset": None}}) if nft is not None else None
    for kind in ("set", "map"):
        for item in listed or ():
            for element in item.get(kind, {}).get("elem", ()):
                yield f"element of the {kind} {item[kind]['name']}: {element}"
    for path in Path("/var/lib/cni/networks", network).glob("*[0-9a-f][.:]*"):
        if not path.name.startswith("last_reserved_ip."):
            yield f"allocation {path.name}"


def _step(title: str, *texts: str) -> Step:
    return Step(title, tuple(line for text in texts for line in text.rstrip("\n").splitlines()))


def _printer() -> Callable[[Step], None]:
    out = console(markup=False)

    def show(step: Step) -> None:
        out.print(f"\n=== {step.title}", style="bold")
        for line in step.lines:
            out.print(f"    {line}")

    return show


def _silent(_: Step) -> None:
    """Nothing: the whole is told as JSON in the end."""


def _run(*command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdin": subprocess.DEVNULL, **options} if "input" not in options else options
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done
