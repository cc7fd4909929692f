"""Networks as other projects write them on real nodes: linted, and attached by our runtime library.

The files in `known` are called after who writes them. What is not ours in their chains (calico,
cilium-cni) is stood in for: an executable that connects the container by ours, in the way in which
theirs leaves it for the plugins that follow. `flannel` is ours, on what a flanneld has written.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from cni_py.lint import File, lint
from cni_py.lint import Host as Linted
from cni_py.spec.located import parse
from fixtures import leases
from fixtures.cnitool import NET_D
from fixtures.host import BIN, ROOT
from fixtures.leaks import leaks

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.host import Host

KNOWN = sorted((ROOT / "tests" / "runtime" / "known").iterdir())
FOREIGN = ("calico", "cilium-cni")

# As containerd passes a pod's hostPort, and its annotations with limits.
LIMIT = {"Rate": 8000000, "Burst": 4294967295}
ASKED = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}],
    "aliases": {"podnet": ["web"]},
    "bandwidth": {f"{way}{key}": LIMIT[key] for way in ("ingress", "egress") for key in LIMIT},
}

# In the form of the real ones, which give a veth pair with a host route.
STAND_IN = f"""#!{sys.executable}
import json, os, subprocess, sys
verb = os.environ["CNI_COMMAND"]
config = json.load(sys.stdin) if verb != "VERSION" else {{}}
ranges = [[{{"subnet": "10.244.7.0/24"}}]]
ipam = {{"type": "host-local", "ranges": ranges, "routes": [{{"dst": "0.0.0.0/0"}}]}}
own = {{key: config[key] for key in ("name", "cniVersion", "prevResult") if key in config}}
if verb == "VERSION":
    versions = ["0.3.1", "0.4.0", "1.0.0"]
    print(json.dumps({{"cniVersion": "1.0.0", "supportedVersions": versions}}))
elif config.get("chaining-mode"):
    if verb == "ADD":
        print(json.dumps(config["prevResult"]))
else:
    own |= {{"type": "ptp", "mtu": 1500, "ipam": ipam}}
    plugin = os.path.join("{BIN}", own["type"])
    sys.exit(subprocess.run([plugin], input=json.dumps(own).encode()).returncode)
"""


# ADD, CHECK where the version has it, an echo request to each gateway, DEL.
ATTACH = """
import json, subprocess, sys
from cni_py.runtime import CniError, Parameters, Runtime
name, cni_path, capabilities = sys.argv[1:]
runtime = Runtime(tuple(cni_path.split(":")))
network = runtime.network(name)
container = Parameters("c1", "/run/netns/c1", "eth0", (), json.loads(capabilities))
added = runtime.add(network, container)
try:
    runtime.check(network, container)
    print("checked")
except CniError as error:
    print(error.msg)
for one in added.result.ips:
    ping = ("ip", "netns", "exec", "c1", "busybox", "ping", "-c", "1", "-W", "2", str(one.gateway))
    subprocess.run(ping, check=True, stdout=subprocess.DEVNULL)
runtime.delete(network, container)
"""


@pytest.fixture
def cni_path(tmp_path: Path) -> str:
    for name in FOREIGN:
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    return f"{BIN}:{tmp_path}"


@pytest.mark.parametrize("file", KNOWN, ids=[one.stem for one in KNOWN])
def test_as_written_on_a_node(host: Host, cni_path: str, file: Path) -> None:
    text = file.read_bytes()
    assert lint([File(file.name, parse(text))], Linted.with_executables(cni_path)) == []
    host.run("tee", f"{NET_D}/{file.name}", stdin=text)
    network = json.loads(text)
    declared = {key for one in network["plugins"] for key in one.get("capabilities", ())}
    capabilities = {key: ASKED[key] for key in declared & set(ASKED)}
    leases.text(host, leases.FLANNEL, leases.ENVIRONMENT)
    host.container("c1")
    host.serve("--idle-workers", "1", forked=True)
    script = (sys.executable, "-c", ATTACH, network["name"], cni_path, json.dumps(capabilities))
    checked = host.run(*script).stdout
    if network["cniVersion"] == "0.3.1":
        assert "does not support the CHECK command" in checked
    else:
        assert checked == "checked\n"
    assert leaks(host) == []
