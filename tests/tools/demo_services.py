"""`make demo-services`: three instances behind one name on two hosts, and who calls them.

Each host is a network and mount namespace behind a router, where a real etcd is; containers are
joined by the overlay. Nothing of the machine's own network changes, and nothing is left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fixtures.agents import Cluster
from fixtures.background import Background
from fixtures.etcd import ENDING_WITH_US
from fixtures.host import ROOT
from fixtures.resolver import ask
from fixtures.underlay import Underlay, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures.host import Container, Host

_DOMAIN, _PORT, _URL = "shop.internal", 8080, "http://web:8080/ping"
_TTL = 4
_CHECK = {"type": "http", "path": "/ping", "intervalSeconds": 0.5, "timeoutSeconds": 0.25,
          "fall": 2}  # fmt: skip
# interval * fall + timeout.
_BOUND = 0.5 * 2 + 0.25
_WEB = {"name": "web", "port": _PORT, "check": _CHECK}
_NETWORK = {"cniVersion": "1.1.0", "name": "shop"}
_CHAIN: tuple[dict[str, Any], ...] = (
    {"type": "overlay", "delegate": {"isDefaultGateway": True}},
    {"type": "dns", "domainName": _DOMAIN},
    {"type": "services"},
)
_STEADY_SECONDS = 2.0


class Attached:
    """A container with a name, and what runs in it."""

    def __init__(self, host: Host, name: str, page: Path, *services: Any) -> None:
        self.host, self._page = host, page
        self.container: Container = host.container(name)
        self.result: Any = None
        self._args = {"args": {"cni": {"name": name, "services": services}}}
        for one in _CHAIN:
            previous = {} if self.result is None else {"prevResult": self.result}
            config = _NETWORK | one | self._args | previous
            self.result = host.add(one["type"], config, self.container)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        address: str = self.result["ips"][0]["address"]
        return address.partition("/")[0]

    @property
    def server(self) -> str:
        server: str = self.result["dns"]["nameservers"][0]
        return server

    def serve(self) -> None:
        command = ("busybox", "httpd", "-f", "-p", str(_PORT), "-h", str(self._page))
        inside = self.container.command(*ENDING_WITH_US, *command)
        self.process = subprocess.Popen(inside, stdout=subprocess.DEVNULL)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def call(self) -> Background:
        """Call the service from in here without an end, by a resolv.conf as a runtime writes it."""
        dns = self.result["dns"]
        text = "".join(f"nameserver {one}\n" for one in dns["nameservers"])
        text += f"search {' '.join(dns['search'])}\n"
        (self._page / "resolv.conf").write_text(text)
        script = f'mount --bind {self._page}/resolv.conf /etc/resolv.conf && exec "$@"'
        command = self.container.command(
            *ENDING_WITH_US, "unshare", "--mount", "sh", "-c", script, "sh",
            sys.executable, "-m", "tools.calling", _URL,
        )  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "PYTHONSAFEPATH": "1"}
        return Background(command, stream="stdout", env=environment)

    def answers(self) -> list[str]:
        """What DNS says of the service here."""
        return ask(self.container, self.server, f"web.{_DOMAIN}").records

    def take_down(self) -> None:
        self.end()
        for one in reversed(_CHAIN):
            config = _NETWORK | one | self._args | {"prevResult": self.result}
            outcome = self.host.call(one["type"], "DEL", config, self.container)
            assert outcome.status == 0, outcome


class Calls:
    """The client's calls, a span at a time."""

    def __init__(self, client: Background) -> None:
        self._client, self._told = client, 0

    def have_begun(self) -> bool:
        return eventually(lambda: bool(self._client.lines), 30)

    def tell(self, what: str) -> int:
        """Print what has become of the calls that began since the last time; how many failed."""
        now = time.monotonic()
        # One that is under way has met what was before.
        self._client.wait_for(lambda line: line["at"] > now, self._told)
        lines = [one for one in self._client.lines[self._told :] if one["at"] <= now]
        self._told += len(lines)
        failed = [one for one in lines if one["why"]]
        answered = Counter(one["address"] for one in lines if not one["why"])
        by = ", ".join(f"{number} by {address}" for address, number in sorted(answered.items()))
        print(f"  {what}: {len(lines)} calls, {len(failed)} failed; {by}")
        for why, number in Counter(one["why"] for one in failed).most_common():
            print(f"    {number} x {why}")
        return len(failed)


def main() -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="cni-demo-")))
        (folder / "ping").write_text("pong\n")
        underlay = stack.enter_context(closing(Underlay.start((1, 2))))
        print("two hosts behind a router: 192.168.1.1 and 192.168.2.2")
        cluster = stack.enter_context(closing(Cluster.start(underlay, EnableIPv6=False)))
        print(f"an etcd at {cluster.etcd.endpoints}; on each host cni-py agent --services")
        cluster.join(fixed=False, options=("--services", f"--services-ttl={_TTL}"))
        cluster.settle()
        webs = list(attached(cluster, folder))
        caller = Attached(cluster.agents[1].host, "client", folder)
        print(f"host 1: client has {caller.address}, its name server is {caller.server}")
        told(caller, {one.address for one in webs}, "\nall are known")
        client = caller.call()
        try:
            shown(cluster, underlay, webs, caller, Calls(client))
        finally:
            client.stop()
        for one in (*webs, caller):
            one.take_down()
        for agent in cluster.agents.values():
            agent.release()
        left = cluster.etcd.ctl("get", "--prefix", "--keys-only", "/skydns/")
        assert not (left or "").strip(), left
    print(f"\n{time.monotonic() - began:.1f} s; nothing is left")


def attached(cluster: Cluster, page: Path) -> Iterator[Attached]:
    """Two instances on host 1 and one on host 2."""
    print()
    for number, name in ((1, "web1"), (1, "web2"), (2, "web3")):
        one = Attached(cluster.agents[number].host, name, page, _WEB)
        one.serve()
        print(f"host {number}: {name} has {one.address}, and serves {_URL}")
        yield one


def shown(
    cluster: Cluster, underlay: Underlay, webs: list[Attached], caller: Attached, calls: Calls
) -> None:
    """What happens, and what the client notices of it."""
    first, _, far = webs
    everyone = {one.address for one in webs}
    assert calls.have_begun()
    time.sleep(_STEADY_SECONDS)
    assert calls.tell("with all three") == 0

    print(f"\nweb1's server is killed: {_CHECK['fall']} checks every {_CHECK['intervalSeconds']} s")
    first.end()
    told(caller, everyone - {first.address}, "web1 is out", f"at most {_BOUND} s and a look")
    calls.tell("meanwhile")
    time.sleep(_STEADY_SECONDS)
    assert calls.tell("afterwards") == 0

    print("\nweb1's server is started again")
    first.serve()
    told(caller, everyone, "web1 is back")
    time.sleep(_STEADY_SECONDS)
    assert calls.tell("since then") == 0

    print(f"\nhost 2 is cut off: its entries last for {_TTL} s")
    underlay.members[2].set_cable(up=False)
    told(caller, everyone - {far.address}, "web3 is out")
    calls.tell("meanwhile")
    time.sleep(_STEADY_SECONDS)
    assert calls.tell("afterwards") == 0
    print(f"  on host 2 itself its own name goes on: {names(far.answers())}")

    print("\nhost 2 is back")
    underlay.members[2].set_cable(up=True)
    told(caller, everyone, "web3 is back")
    cluster.settle()
    calls.tell("meanwhile")


def told(caller: Attached, wanted: set[str], what: str, bound: str = "") -> None:
    """Wait until DNS says so, and say how long that took and what it says."""
    began = time.monotonic()
    assert eventually(lambda: set(caller.answers()) == wanted, 60), caller.answers()
    took = f" after {time.monotonic() - began:.1f} s" + (f" ({bound})" if bound else "")
    print(f"{what}{took}: web.{_DOMAIN} is {names(caller.answers())}")


def names(addresses: list[str]) -> str:
    return ", ".join(sorted(addresses)) or "nowhere"


if __name__ == "__main__":
    main()
