"""The launcher under address and undefined-behaviour sanitizers, in what may come its way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.configs import l3
from fixtures.host import BIN, ROOT, Host

WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wshadow", "-Wpedantic"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
# Runs a program under another argv[0], and with streams closed.
EXEC = (
    "import os, sys\n"
    "path, name, closed, *rest = sys.argv[1:]\n"
    "for fd in closed:\n"
    "    os.close(int(fd))\n"
    "os.execve(path, [name], dict(os.environ))\n"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher, compiled with sanitizers, its folder filled in as `cni-py install` does."""
    folder = tmp_path_factory.mktemp("launcher")
    source = (ROOT / "plugins" / "launcher.c").read_text()
    filled = source.replace('"@cni-py executables@"', json.dumps(str(BIN / ".cni-py")))
    assert filled != source
    (folder / "launcher.c").write_text(filled)
    path = folder / "bridge"
    command = ["gcc", *WARNINGS, *SANITIZERS, "-o", str(path), str(folder / "launcher.c")]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without Python executables."""
    path = tmp_path_factory.mktemp("alone") / "bridge"
    source = str(ROOT / "plugins" / "launcher.c")
    subprocess.run(["gcc", *WARNINGS, *SANITIZERS, "-o", str(path), source], check=True)
    return path


def environ(host: Host, **more: str) -> dict[str, str]:
    container = host.container("c1")
    return container.environ("ADD") | {"UBSAN_OPTIONS": "halt_on_error=1", **more}


def both_ways(host: Host, program: Path, env: dict[str, str]) -> None:
    """ADD and DEL through the program, of the same attachment."""
    for verb in ("ADD", "DEL"):
        outcome = host.run(str(program), stdin=json.dumps(l3()), env=env | {"CNI_COMMAND": verb})
        assert "Sanitizer" not in outcome.stderr
        assert "runtime error" not in outcome.stderr


@pytest.mark.parametrize("path", [None, "", "/run/nobody", "/run/" + "long" * 60, "relative"])
def test_with_and_without_a_server(served: Host, program: Path, path: str | None) -> None:
    both_ways(served, program, environ(served) | ({} if path is None else {"CNI_PY_SOCKET": path}))


@pytest.mark.parametrize("size", [1, 100_000, 131_000, 131_072, 200_000])
def test_large_environment(served: Host, program: Path, size: int) -> None:
    """What does not fit into a message is done by the Python executable."""
    values = ["x" * min(60_000, size - start) for start in range(0, size, 60_000)]
    more = {f"V{index}": value for index, value in enumerate(values)}
    both_ways(served, program, environ(served) | more)


@pytest.mark.parametrize("name", ["/", "bridge", "./bridge", "/a/b/bridge", "unknown", "x" * 300])
@pytest.mark.parametrize("closed", ["", "0", "1", "2", "012"])
def test_names_and_streams(served: Host, program: Path, name: str, closed: str) -> None:
    """One JSON document or none on stdout, whatever it is called and has."""
    env = {"CNI_COMMAND": "VERSION", "CNI_PATH": str(BIN)}
    command = (sys.executable, "-I", "-c", EXEC, str(program), name, closed)
    outcome = served.run(*command, env=env, check=False)
    assert "Sanitizer" not in outcome.stderr
    assert "runtime error" not in outcome.stderr
    if "1" in closed:
        assert outcome.stdout == ""
    else:
        document = outcome.json
        known = name.rsplit("/", 1)[-1] == "bridge"
        assert ("supportedVersions" in document) == known
        assert outcome.status == (0 if known else 1)


@pytest.mark.parametrize("answer", [b"", b"A", b"AW", b"X", b"Xab", b"Z" * 5000, b"E{}", b"AX\x07"])
def test_odd_answers(host: Host, program: Path, answer: bytes) -> None:
    """A server that is not ours, or dies at any moment."""
    host.stop_serving()
    serve = (
        "import os, socket, sys\n"
        "os.makedirs('/run/cni-py')\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.bind('/run/cni-py/cni.sock')\n"
        "s.listen()\n"
        "print('ready', flush=True)\n"
        "c, _ = s.accept()\n"
        "c.recv(1 << 18)\n"
        "whole = bytes.fromhex(sys.argv[1])\n"
        "parts = [whole] if whole[:1] in b'XZE' else [bytes((one,)) for one in whole]\n"
        "if whole[:2] == b'AX':\n"
        "    parts = [b'A', whole[1:]]\n"
        "for part in parts:\n"
        "    c.send(part)\n"
    )
    process = subprocess.Popen(
        [*host.prefix, sys.executable, "-I", "-c", serve, answer.hex()],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    env = {"CNI_COMMAND": "VERSION", "CNI_PATH": str(BIN)}
    outcome = host.run(str(program), env=env, check=False)
    process.wait(10)
    process.stdout.close()
    assert "Sanitizer" not in outcome.stderr
    begun = answer[:1] == b"A"
    if answer == b"AX\x07":
        assert (outcome.status, outcome.stdout) == (7, "")
    elif answer == b"E{}":
        assert (outcome.status, outcome.stdout) == (1, "{}")
    elif answer == b"AW":
        assert (outcome.status, outcome.stdout) == (1, "")
    elif begun:
        assert (outcome.status, outcome.json["code"]) == (1, 11)
    else:
        # It had not begun: the Python executable does it.
        assert "supportedVersions" in outcome.json


@pytest.mark.parametrize("verb", ["ADD", "STATUS"])
def test_neither_server_nor_python(host: Host, tmp_path: Path, verb: str) -> None:
    """Code 11, which a retry may mend; for STATUS code 50."""
    host.stop_serving()
    lonely = tmp_path / "bridge"
    subprocess.run(["gcc", "-o", lonely, ROOT / "plugins" / "launcher.c"], check=True)
    outcome = host.run(str(lonely), env={"CNI_COMMAND": verb}, check=False)
    assert outcome.status == 1
    assert outcome.json["code"] == (50 if verb == "STATUS" else 11)
    assert outcome.json["msg"] == "no cni-py server is listening"


@pytest.mark.parametrize("size", [0, 1, 65_536, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_deferring_input_of_any_size(host: Host, alone: Path, size: int) -> None:
    """What is written down is the whole of it; a megabyte is the most."""
    host.stop_serving()
    env = environ(host) | {"CNI_COMMAND": "DEL"}
    outcome = host.run(str(alone), stdin="x" * size, env=env, check=False)
    written = host.run("sh", "-c", "cat /run/cni-py/deferred/* 2>/dev/null", check=False).stdout
    host.run("rm", "-rf", "/run/cni-py/deferred")
    assert "Sanitizer" not in outcome.stderr
    assert "runtime error" not in outcome.stderr
    if size <= 1 << 20:
        assert (outcome.status, outcome.stdout) == (0, "")
        assert written.startswith("CNID1bridge\0")
        assert written.endswith("\0\0" + "x" * size)
    else:
        assert (outcome.json["code"], written) == (11, "")


@pytest.mark.parametrize("size", [50_000, 131_000, 131_072, 200_000])
def test_deferring_a_large_environment(host: Host, alone: Path, size: int) -> None:
    host.stop_serving()
    values = ["x" * min(60_000, size - start) for start in range(0, size, 60_000)]
    more = {f"V{index}": value for index, value in enumerate(values)}
    env = environ(host) | {"CNI_COMMAND": "DEL"} | more
    outcome = host.run(str(alone), stdin="{}", env=env, check=False)
    host.run("rm", "-rf", "/run/cni-py/deferred")
    assert "Sanitizer" not in outcome.stderr
    assert outcome.status == (0 if size == 50_000 else 1)


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_deferring_without_streams(host: Host, alone: Path, closed: str) -> None:
    """No input is no DEL; the others do not matter."""
    host.stop_serving()
    command = (sys.executable, "-I", "-c", EXEC, str(alone), "bridge", closed)
    env = environ(host) | {"CNI_COMMAND": "DEL"}
    outcome = host.run(*command, env=env, stdin=json.dumps(l3()), check=False)
    host.run("rm", "-rf", "/run/cni-py/deferred")
    assert "Sanitizer" not in outcome.stderr
    assert outcome.status == (1 if "0" in closed else 0)


@pytest.mark.parametrize("delay", range(0, 2400, 400))
def test_early_signals(served: Host, program: Path, delay: int) -> None:
    """However early a signal comes, the call has an end, and its DEL leaves nothing."""
    env = environ(served)
    # In the background sh gives a program /dev/null to read: the configuration comes from a file.
    script = (
        f"cat > /run/conf; {program} < /run/conf > /run/out & pid=$!; "
        f"i=0; while [ $i -lt {delay} ]; do i=$((i+1)); done; kill -TERM $pid; wait $pid; echo $?"
    )
    outcome = served.run("sh", "-c", script, stdin=json.dumps(l3()), env=env)
    assert "Sanitizer" not in outcome.stderr
    assert outcome.stdout.strip() in ("0", "1", "143")
    if outcome.stdout.strip() == "1":
        assert json.loads(served.run("cat", "/run/out").stdout)["code"] == 11
    served.run(str(program), stdin=json.dumps(l3()), env=env | {"CNI_COMMAND": "DEL"})
    assert served.ports() == []
