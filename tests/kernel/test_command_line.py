"""`cni-py`: installing, describing, and finding out what is wrong."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from cni_py.skel import EXECUTABLES
from fixtures.configs import l3
from fixtures.host import BIN, Host
from fixtures.server import CNI_PY


def test_install_elsewhere(host: Host, tmp_path: Path) -> None:
    """The executables work from any folder, and a second installation replaces the first."""
    for _ in range(2):
        host.run(CNI_PY, "install", str(tmp_path / "opt"))
    names = {path.name for path in (tmp_path / "opt").iterdir()}
    assert names == {".cni-py", *EXECUTABLES}
    container = host.container("c1")
    env = container.environ("ADD", path=str(tmp_path / "opt"))
    outcome = host.run(str(tmp_path / "opt" / "bridge"), stdin=json.dumps(l3()), env=env)
    assert outcome.json["ips"][0]["address"] == "10.1.2.2/24"
    host.delete("bridge", l3(), container)


def test_install_where_it_cannot(host: Host) -> None:
    host.run("touch", "/run/file")
    outcome = host.run(CNI_PY, "install", "/run/file/folder", check=False)
    assert outcome.status == 1
    assert outcome.stderr == "cni-py install: /run/file: it is not a folder\n"
    absent = host.run(CNI_PY, "uninstall", "/opt/cni/absent", check=False)
    assert (absent.status, "'/opt/cni/absent' does not exist" in absent.stderr) == (2, True)


def test_schema(host: Host) -> None:
    lines = host.run(CNI_PY, "schema", "/run/schemas").stdout.splitlines()
    assert json.loads(host.run(CNI_PY, "schema", "/run/schemas", "--json").stdout) == lines
    assert "/run/schemas/bridge.json" in lines
    schema = json.loads(host.run("cat", "/run/schemas/bridge.json").stdout)
    assert schema["title"] == "bridge: plugin configuration"


def test_doctor(host: Host) -> None:
    """Every line is what was found, and what is wrong has an advice."""
    host.stop_serving()
    host.run("mkdir", "-p", "/opt/cni/bin")
    host.run("sh", "-c", "echo > /opt/cni/bin/bridge")
    poor = host.run(CNI_PY, "doctor", check=False)
    assert poor.status == 1
    assert (
        "LOOK /opt/cni/bin/bridge is not cni-py's\n     cni-py install /opt/cni/bin" in poor.stdout
    )
    assert "LOOK /opt/cni/bin/static is missing" in poor.stdout
    assert "LOOK no server listens at /run/cni-py/cni.sock" in poor.stdout
    host.serve()
    good = host.run(CNI_PY, "doctor", str(BIN))
    assert "LOOK" not in good.stdout
    assert "ok   the launcher is compiled" in good.stdout


def test_metrics(host: Host) -> None:
    """As text and as JSON; without a server one line says what to do."""
    host.stop_serving()
    alone = host.run(CNI_PY, "metrics", check=False)
    assert (alone.status, alone.stdout) == (1, "")
    assert alone.stderr == (
        "cni-py metrics: /run/cni-py/metrics.sock: No such file or directory; "
        "no server listens there: start one with `cni-py serve`\n"
    )
    host.serve()
    host.call("loopback", "STATUS", {"cniVersion": "1.1.0", "name": "net1", "type": "loopback"})
    text = host.run(CNI_PY, "metrics").stdout
    assert 'cni_py_calls_total{plugin="loopback",verb="STATUS",code=""} 1' in text
    samples = host.run(CNI_PY, "metrics", "--json").json
    labels = {"plugin": "loopback", "verb": "STATUS", "code": ""}
    assert {"name": "cni_py_calls_total", "labels": labels, "value": 1.0} in samples
    assert len(samples) == len([line for line in text.splitlines() if line[0] != "#"])


def test_interrupted_while_it_loads(host: Host) -> None:
    """It ends by the signal, and has nothing to say."""
    trace = ("strace", "-qq", "-o", "/dev/null", "-e", "trace=openat")
    # The first module of the command line is opened after its package.
    struck = f"inject=openat:signal=SIGINT:when={_opened_before(host, trace)}"
    outcome = host.run(*trace, "-e", struck, CNI_PY, "--version", check=False)
    assert (outcome.status, outcome.stdout, outcome.stderr) == (-signal.SIGINT, "", "")


def _opened_before(host: Host, trace: tuple[str, ...]) -> int:
    """How many files have been opened when `cni_py/cli/group.py` is."""
    listed = host.run(*trace[:2], "-o", "/dev/stderr", *trace[4:], CNI_PY, "--version").stderr
    opened = [line for line in listed.splitlines() if "openat(" in line]
    return next(number for number, line in enumerate(opened, 1) if "cli/__pycache__/group" in line)
