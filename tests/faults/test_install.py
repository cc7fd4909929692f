"""`cni-py install` and `uninstall` under faults: kills, errors, full disks, each other.

`INSTALL_KILLS=0` tries every moment of a kill, and not some of them.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands.test_install import BIN, everything, install, reference_plugins, uninstall

from cni_py.skel import EXECUTABLES
from fixtures.builds import build
from fixtures.moments import SIGKILL, Moment, moments_of
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from fixtures.host import Host

OF_OTHERS = """#!/bin/sh
echo '{"cniVersion": "1.1.0"}'
"""
KILLS = int(os.environ.get("INSTALL_KILLS", "4"))
_MACHINE = 18
_AARCH64, _X86_64 = 183, 62


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another build of cni-py."""
    cni_py = build(tmp_path_factory.mktemp("other"), "9.9.9")
    with launcher_of(cni_py).open("ab") as launcher:
        launcher.write(b"another one")
    return cni_py


def launcher_of(cni_py: str) -> Path:
    return Path(cni_py).parents[1] / "site/cni_py/executables/cni-py-launcher"


def contents(host: Host) -> dict[str, str]:
    """What each executable's file has in it."""
    names = [f"{BIN}/{name}" for name in EXECUTABLES]
    listed = host.run("sha256sum", *names, check=False).stdout.splitlines()
    return {name: digest for digest, name in map(str.split, listed)}


# Kills.


def moments(host: Host, tmp_path: Path, *command: str) -> list[Moment]:
    """The moments at which others can notice what a command has done."""
    path = tmp_path / "trace"
    host.run("strace", "-qq", "-y", "-o", str(path), *command)
    found = moments_of(path.read_text(errors="replace"))
    # What Python itself does comes before the folder is touched.
    return [one for one in found if one.kind == "file"]


def sampled(found: list[Moment]) -> list[Moment]:
    count = KILLS or len(found)
    return [found[index * len(found) // count] for index in range(min(count, len(found)))]


@pytest.mark.slow
@pytest.mark.parametrize("upgrades", [False, True])
def test_killed_installation(host: Host, tmp_path: Path, other: str, upgrades: bool) -> None:
    """What is there works, old or new; repeating it, or taking it away, leaves nothing behind."""
    reference_plugins(host)
    host.run("sh", "-c", f"cat > {BIN}/bridge; chmod 755 {BIN}/bridge", stdin=OF_OTHERS)
    before, first = everything(host), contents(host)

    def prepare() -> dict[str, str]:
        if upgrades:
            install(host, "--conf", "10-bridge")
        return contents(host)

    old = prepare()
    command = (other, "install", "--conf", "11-isolated")
    found = moments(host, tmp_path, *command)
    new = contents(host)
    assert len(found) > 5 * len(EXECUTABLES)
    assert set(old.values()).isdisjoint(new.values())
    uninstall(host)
    assert contents(host) == first
    for number, one in enumerate(sampled(found)):
        prepare()
        killed(host, one, *command)
        for path, digest in contents(host).items():
            assert digest in (old.get(path), new[path]), (one, path)
        works(host)
        if number % 2:
            host.run(*command)
            assert contents(host) == new, one
            listed = host.run("find", "/opt/cni", "/etc/cni", "-name", "*.new").stdout
            assert listed == "", one
        assert "left" not in uninstall(host), one
        assert everything(host) == before, one


def works(host: Host) -> None:
    """In a first installation some are not there yet."""
    env = {"CNI_COMMAND": "VERSION", "CNI_PY_SOCKET": ""}
    for path in [one for one in contents(host) if one.endswith(("/bridge", "/vrf"))]:
        assert host.run(path, env=env).json["cniVersion"] == "1.1.0"


def killed(host: Host, moment: Moment, *command: str) -> None:
    inject = f"inject={moment.name}:{SIGKILL}:when={moment.number}"
    strace = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={moment.name}", "-e", inject)
    assert host.run(*strace, *command, check=False).status == -9, moment


@pytest.mark.slow
def test_killed_removal(host: Host, tmp_path: Path) -> None:
    """A second one does the rest; so does an installation."""
    reference_plugins(host)
    before = everything(host)
    install(host, "--conf", "10-bridge")
    found = moments(host, tmp_path, CNI_PY, "uninstall")
    for number, one in enumerate(sampled(found)):
        install(host, "--conf", "10-bridge")
        killed(host, one, CNI_PY, "uninstall")
        if number % 2:
            install(host, "--conf", "10-bridge")
        assert "left" not in uninstall(host), one
        assert everything(host) == before, one


# Disks and rights.


def test_read_only(host: Host) -> None:
    host.run("mount", "-n", "-t", "tmpfs", "-o", "ro", "none", BIN)
    refused = install(host, check=False)
    assert (refused.status, refused.stdout) == (1, "")
    assert refused.stderr.startswith(
        f"cni-py install: {BIN}/.cni-py: Read-only file system: mount it"
    )
    assert "`cni-py install /var/lib/cni/bin`" in refused.stderr
    refused = install(host, f"{BIN}/other", check=False)
    assert f"{BIN}/other: Read-only file system" in refused.stderr
    install(host, "/var/lib/cni/bin")
    uninstall(host, "/var/lib/cni/bin")


@pytest.mark.parametrize("kilobytes", [4, 8, 200, 9000])
def test_disk_full(host: Host, other: str, kilobytes: int) -> None:
    """Nothing has been replaced, and nothing is left behind; with room it goes on."""
    room = "-n -t tmpfs -o size={}k none"
    host.run("mount", *room.format(40960).split(), BIN)
    reference_plugins(host)
    install(host)
    before = all_but_record(host)
    used = host.run("df", "-k", "--output=used", BIN).stdout.split()[1]
    limit = f"remount,size={int(used) + kilobytes}k"
    host.run("mount", "-n", "-o", limit, BIN)
    refused = install(host, cni_py=other, check=False)
    assert refused.status == 1
    assert "No space left on device: make room and repeat it" in refused.stderr
    assert all_but_record(host) == before
    works(host)
    host.run("mount", "-n", "-o", "remount,size=40960k", BIN)
    install(host, cni_py=other)
    assert "left" not in uninstall(host)


def all_but_record(host: Host) -> list[str]:
    """It may have been written anew, with the same content."""
    return [one for one in everything(host) if not one.endswith("/record.json ")]


def test_disk_full_at_first(host: Host) -> None:
    """The folders that were made go again."""
    host.run("mount", "-n", "-t", "tmpfs", "-o", "size=64k", "none", "/opt/cni")
    refused = install(host, check=False)
    assert "No space left on device" in refused.stderr
    assert host.run("ls", "-A", "/opt/cni").stdout == ""


@pytest.mark.parametrize("enforcing", [True, False])
def test_denied(host: Host, enforcing: bool) -> None:
    """Root is refused: it says where to look, and nothing has changed."""
    if enforcing:
        host.run("sh", "-ec", "mount -n -t tmpfs none /sys/fs; mkdir /sys/fs/selinux")
        host.run("sh", "-c", "echo 1 > /sys/fs/selinux/enforce")
    reference_plugins(host)
    before = everything(host)
    denied = ("-P", f"{BIN}/.bandwidth.new", "-e", "inject=openat:error=EACCES")
    refused = host.run(
        *("strace", "-qq", "-o", "/dev/null", "-e", "trace=openat", *denied),
        *(CNI_PY, "install"),
        check=False,
    )
    assert refused.status == 1
    assert refused.stderr.startswith(f"cni-py install: {BIN}/bandwidth: Permission denied: ")
    assert "`ausearch -m AVC -ts recent`" in refused.stderr
    assert (f"`restorecon -Rv {BIN}`" in refused.stderr) == enforcing
    assert everything(host) == before


def test_without_root(host: Host) -> None:
    command = ("setpriv", "--reuid=65534", "--clear-groups", CNI_PY, "install")
    refused = host.run(*command, check=False)
    assert refused.status == 1
    assert refused.stderr.endswith(": Permission denied: try again with sudo\n")


# The launcher's machine.


def test_wrong_machine(host: Host, tmp_path: Path) -> None:
    """It is found before anything is written, also for an image of another machine."""
    cni_py = build(tmp_path / "build", "9.9.9")
    launcher = launcher_of(cni_py)
    program = bytearray(launcher.read_bytes())
    here = program[_MACHINE]
    there = _X86_64 if here == _AARCH64 else _AARCH64
    program[_MACHINE] = there
    launcher.write_bytes(program)
    refused = install(host, cni_py=cni_py, check=False)
    assert (refused.status, refused.stdout) == (1, "")
    names = {_AARCH64: "aarch64", _X86_64: "x86_64"}
    assert refused.stderr.startswith(
        f"cni-py install: the package's launcher is for {names[there]}, and this machine is "
    )
    assert host.run("ls", "-A", BIN).stdout == ""
    image = tmp_path / "image"
    (image / "bin").mkdir(parents=True)
    (image / "bin" / "sh").write_bytes(bytes(program))
    arguments = ("--root", str(image), "--launcher-only")
    install(host, *arguments, cni_py=cni_py)
    refused = install(host, *arguments, check=False)
    assert f"{image} is {names[there]}: take cni-py's wheel for it" in refused.stderr
    launcher.write_bytes(b"#!/bin/sh\n")
    refused = install(host, cni_py=cni_py, check=False)
    assert "the package's launcher is no program" in refused.stderr


def test_without_a_launcher(host: Host, tmp_path: Path) -> None:
    """Built without a C compiler: Python executables alone, and back."""
    cni_py = build(tmp_path / "build", "9.9.9")
    launcher_of(cni_py).unlink()
    refused = install(host, "--launcher-only", cni_py=cni_py, check=False)
    assert "was built without the launcher" in refused.stderr
    install(host)
    install(host, cni_py=cni_py)
    assert host.run("head", "-c2", f"{BIN}/bridge").stdout == "#!"
    works(host)
    install(host)
    uninstall(host)
    assert host.run("ls", "-A", BIN).stdout == ""


# Each other.


def test_at_once(host: Host, other: str) -> None:
    """One after another: in the end all is as the last one has left it."""
    reference_plugins(host)
    before = everything(host)
    commands = [
        (CNI_PY, "install"),
        (other, "install", "--conf", "10-bridge"),
        (CNI_PY, "uninstall"),
        (CNI_PY, "install", "--launcher-only"),
    ]
    running = [
        subprocess.Popen([*host.prefix, *one], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for one in commands
    ]
    for one in running:
        _, errors = one.communicate(timeout=100)
        assert (one.returncode, errors) == (0, b"")
    works(host)
    uninstall(host)
    assert everything(host) == before


def test_two_removals_at_once(host: Host) -> None:
    host.run("rmdir", BIN)
    install(host)
    command = [*host.prefix, CNI_PY, "uninstall"]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    statuses = sorted(one.wait(100) for one in running)
    # The slower one may find no folder any more.
    assert statuses in ([0, 0], [0, 2])
    assert host.run("ls", "-A", "/opt/cni").stdout == ""
