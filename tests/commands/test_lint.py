"""`cni-py lint` as it is run: exit status, JSON, the host it runs on, and files that are none."""

from __future__ import annotations

import json
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.host import Host

GOOD = {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "loopback"}]}
BRIDGE = {
    "type": "bridge",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/16"}]]},
}


def run(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [CNI_PY, "lint", "--offline", *arguments], input=given, capture_output=True, check=False
    )
    said = [one.decode() for one in (done.stdout, done.stderr)]
    assert "Traceback" not in said[1]
    return subprocess.CompletedProcess(done.args, done.returncode, *said)


def written(path: Path, config: object) -> Path:
    path.write_text(json.dumps(config))
    return path


def test_exit_status(tmp_path: Path) -> None:
    """0 without errors, also with warnings; 1 with errors; warnings count with --strict."""
    good = written(tmp_path / "a.conflist", GOOD)
    assert (run(good).returncode, run(good).stdout) == (0, "")
    assert run("-", given=json.dumps(GOOD).encode()).returncode == 0
    warned = json.dumps({key: GOOD[key] for key in ("name", "plugins")}).encode()
    assert run("-", given=warned).stdout.startswith("-:1:1: warning: there is no `cniVersion`")
    assert run("-", given=warned).returncode == 0
    assert run("-", "--strict", given=warned).returncode == 1
    assert run("-", given=b"{").returncode == 1


def test_json(tmp_path: Path) -> None:
    path = written(tmp_path / "a.conflist", {**GOOD, "name": "a b"})
    answer = json.loads(run("--json", path, tmp_path / "none.conf").stdout)
    assert answer["files"] == [str(path)]
    assert answer["unreadable"] == [f"{tmp_path}/none.conf: No such file or directory"]
    (finding,) = answer["findings"]
    assert set(finding) == {"file", "line", "column", "severity", "message", "hint"}
    assert (finding["line"], finding["column"], finding["severity"]) == (1, 33, "error")


def test_no_file_to_read(tmp_path: Path) -> None:
    """A missing one, a device, and one of 100 MB of brackets: one line each, and 2."""
    big = tmp_path / "big.conflist"
    with big.open("wb") as file:
        for _ in range(100):
            file.write(b"[" * 2**20)
    done = run(tmp_path / "none.conf", "/dev/zero", big)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"cni-py lint: {tmp_path}/none.conf: No such file or directory",
        "cni-py lint: /dev/zero: it is neither a file nor a folder",
        f"cni-py lint: {big}: it has more than 16777216 bytes",
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" * 10**7, id="brackets"),
        pytest.param(random.Random(1).randbytes(100_000).replace(b"\0", b""), id="noise"),
        pytest.param(b'{"plugins": [' + b"{}," * 300_000, id="plugins"),
        pytest.param(b"," * 10**6, id="commas"),
    ],
)
def test_hostile(data: bytes) -> None:
    """An error or a few, soon, and nothing that a terminal obeys."""
    done = run("-", given=data)
    assert done.returncode == 1
    assert 1 <= len(done.stdout.splitlines()) <= 30
    assert done.stdout.replace("\n", "").isprintable()


def test_binary_among_others(tmp_path: Path) -> None:
    """One line says so, and the files behind it are looked at all the same."""
    (tmp_path / "a.conflist").write_bytes(b"\x7fELF\x02\x01\0\0")
    (tmp_path / "b.conflist").write_bytes("{}".encode("utf-16"))
    written(tmp_path / "c.conflist", {"name": "n"})
    done = run(tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"cni-py lint: {tmp_path}/a.conflist: it is binary",
        f"cni-py lint: {tmp_path}/b.conflist: it is UTF-16: save it as UTF-8",
    ]
    assert f"{tmp_path}/c.conflist:1:1: error: there are no `plugins`" in done.stdout


def test_names_that_a_terminal_obeys(tmp_path: Path) -> None:
    """They are written out; one that is not UTF-8 comes back from the JSON."""
    name = "\x1b[31m\udcff.conflist"
    written(tmp_path / name, {**GOOD, "name": "a b"})
    assert run(tmp_path).stdout.startswith(f"{tmp_path}/\\x1b[31m\\udcff.conflist:1:")
    assert json.loads(run("--json", tmp_path).stdout)["files"] == [f"{tmp_path}/{name}"]


def test_broken_pipe(tmp_path: Path) -> None:
    for index in range(300):
        written(tmp_path / f"{index}.conflist", {"name": index})
    piped = f"{CNI_PY} lint --offline {tmp_path} | head -1"
    done = subprocess.run(["sh", "-c", piped], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_host(host: Host, tmp_path: Path) -> None:
    """A subnet that the host reaches elsewhere, a parent that is not there, and executables."""
    host.run("ip", "link", "add", "docker0", "type", "bridge")
    host.run("ip", "addr", "add", "10.77.2.1/24", "dev", "docker0")
    host.run("ip", "link", "set", "docker0", "up")
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bridge", "macvlan"):
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    path = written(tmp_path / "a.conflist", {**GOOD, "plugins": [BRIDGE]})
    other = {"type": "macvlan", "master": "eth77", "ipam": {"type": "static"}}
    written(tmp_path / "b.conflist", {**GOOD, "name": "m", "plugins": [other]})
    both = (str(path), f"{tmp_path}/b.conflist")
    outcome = host.run(CNI_PY, "lint", "--cni-path", str(folder), *both, check=False)
    assert outcome.status == 1
    said = outcome.stdout
    assert "the host reaches 10.77.2.0/24 through docker0" in said
    assert "this host has no interface eth77" in said
    assert f"{folder} has no executable host-local" in said
    assert f"{folder} has no executable static" in said
    host.run("ip", "link", "del", "docker0")
