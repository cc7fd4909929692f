"""`make demo`: two containers get a network and talk, step by step, in a host of their own.

The "host" is a fresh network namespace with its own state folders, so nothing of this machine
changes. The plugins are run as a container runtime runs them: environment, JSON on stdin.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from fixtures.host import BIN, Container, Host  # noqa: E402
from fixtures.leaks import leaks  # noqa: E402

CONFLIST = ROOT / "conf" / "10-bridge.conflist"
_PORT = "8080"
_SERVE = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Pong(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ping" else 404)
        self.end_headers()
        self.wfile.write(b"pong\\n")

    def log_message(self, *arguments):
        pass

HTTPServer(("", 8080), Pong).serve_forever()
"""
_GET = (
    "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end='')"
)


def main() -> None:
    """Walk through the main job. Raises DemoError, AssertionError or OSError."""
    host = Host.start()
    try:
        walk(host)
    finally:
        host.close()


def walk(host: Host) -> None:
    """The steps."""
    step(f"The network, as an operator writes it: {CONFLIST.relative_to(ROOT)}")
    conflist = json.loads(CONFLIST.read_text())
    show(json.dumps(conflist, indent=2))

    step("Two containers: network namespaces with nothing but a loopback interface")
    web, client = (
        host.container("web", "container-web"),
        host.container("client", "container-client"),
    )
    show(web.run("ip", "-brief", "address").stdout)

    step("ADD: the runtime runs the plugin for each of them; the result is what it gets back")
    results = [call(host, conflist, "ADD", one) for one in (web, client)]
    show(json.dumps(results[0], indent=2))
    show(f"and {client.id}: {', '.join(one['address'] for one in results[1]['ips'])}")

    step("What the host has now: a bridge with the gateways' addresses, one port a container")
    show(host.run("ip", "-brief", "address").stdout)

    address = results[0]["ips"][0]["address"].split("/")[0]
    step(f"An HTTP server in {web.id}, and a request from {client.id}")
    server = subprocess.Popen(web.command(sys.executable, "-I", "-c", _SERVE))
    try:
        show(f"GET http://{address}:{_PORT}/ping")
        show(f"-> {request(client, address)}")
    finally:
        server.kill()
        server.wait()

    step("CHECK: is everything still as ADD left it?")
    for container, result in zip((web, client), results, strict=True):
        call(host, conflist, "CHECK", container, result)
        show(f"{container.id}: yes")

    step("DEL: the runtime takes both down")
    for container, result in zip((web, client), results, strict=True):
        call(host, conflist, "DEL", container, result)
        show(f"{container.id}: done")

    step("What is left of the containers: links, addresses, firewall rules, allocations")
    left = leaks(host)
    show("\n".join(left) if left else "nothing")
    show(host.run("ip", "-brief", "address").stdout)
    if left:
        raise DemoError("the containers have left something behind: this is a defect of cni-py")
    print("\nThe bridge stays, for the next container.")


class DemoError(Exception):
    """What went wrong, in one line with what to do."""


def call(
    host: Host, conflist: dict[str, Any], verb: str, container: Container, result: Any = None
) -> Any:
    """One verb for one container, as a runtime derives it from the list."""
    (plugin,) = conflist["plugins"]
    config = plugin | {key: conflist[key] for key in ("cniVersion", "name")}
    if result is not None:
        config["prevResult"] = result
    outcome = host.call(plugin["type"], verb, config, container)
    if outcome.status != 0:
        error = outcome.json
        details = f" ({error['details']})" if error.get("details") else ""
        raise DemoError(f"{verb} of {container.id} failed: {error['msg']}{details}")
    return json.loads(outcome.stdout) if outcome.stdout else None


def request(client: Container, address: str) -> str:
    """The answer to GET /ping, once the server listens."""
    deadline = time.monotonic() + 10
    command = (sys.executable, "-I", "-c", _GET, f"http://{address}:{_PORT}/ping")
    while True:
        answer = client.run(*command, check=False)
        if answer.status == 0:
            return answer.stdout.strip()
        if time.monotonic() > deadline:
            raise DemoError(f"no answer from {address}: {answer.stderr.strip().splitlines()[-1]}")


def step(text: str) -> None:
    """Announce a step."""
    print(f"\n=== {text}")


def show(text: str) -> None:
    """Print something of the current step."""
    print("\n".join(f"    {line}" for line in text.rstrip("\n").splitlines()))


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("make demo: network namespaces need root: run `sudo make demo`")
    if not (BIN / "bridge").exists():
        sys.exit("make demo: no executables: run `make bin` first")
    try:
        main()
    except (DemoError, AssertionError, OSError) as error:
        sys.exit(f"make demo: {error}")
