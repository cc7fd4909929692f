"""The Debian package: what is in it, and its life on a host with Debian."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cni_py.skel import EXECUTABLES
from fixtures.configs import l3
from fixtures.distributions import NATIVE, Distributions, build
from fixtures.elf import elf_machine
from fixtures.host import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.calls import Outcome
    from fixtures.debian import DebianHost

pytestmark = [pytest.mark.packages, pytest.mark.root]

FOLDER = "/opt/cni/bin"
NETWORK = l3(isGateway=True, ipMasq=True)


def call(
    debian: DebianHost, verb: str, name: str, result: Any = None, check: bool = True
) -> Outcome:
    """Call `bridge` as a runtime does; `result` is what ADD said, for CHECK."""
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": name,
        "CNI_NETNS": f"/run/netns/{name}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": FOLDER,
    }
    config = NETWORK if result is None else NETWORK | {"prevResult": result}
    return debian.run(f"{FOLDER}/bridge", stdin=json.dumps(config), env=env, check=check)


def container(debian: DebianHost, name: str) -> str:
    debian.run("ip", "netns", "add", name)
    return name


def deb(packages: Distributions) -> str:
    return f"/packages/{packages.deb().name}"


def contents(package: Path, folder: Path) -> Path:
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True)
    return folder


def newer(package: Path, folder: Path, version: str) -> Path:
    """The same package under another version."""
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(folder / "raw")], check=True)
    control = folder / "raw" / "DEBIAN" / "control"
    lines = control.read_text().splitlines()
    changed = [f"Version: {version}" if one.startswith("Version: ") else one for one in lines]
    control.write_text("\n".join(changed) + "\n")
    built = folder / "newer.deb"
    subprocess.run(["dpkg-deb", "--build", str(folder / "raw"), str(built)], check=True)
    return built


def serve(debian: DebianHost) -> Any:
    server = debian.start("cni-py", "serve")
    server.wait_for(lambda line: line["event"] == "listening")
    return server


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_contents(packages: Distributions, architecture: str, tmp_path: Path) -> None:
    """Everything for this architecture, nothing where others have theirs, and a true list of it."""
    tree = contents(packages.deb(architecture), tmp_path / "tree")
    files = {str(one.relative_to(tree)) for one in tree.rglob("*") if not one.is_dir()}
    compiled = {one for one in files if (tree / one).read_bytes()[:4] == b"\x7fELF"}
    assert {elf_machine((tree / one).read_bytes()) for one in compiled} == {architecture}
    pythons = {one.split("cpython-")[1].split("-")[0] for one in compiled if "cpython-" in one}
    assert pythons == {"311", "312", "313", "314"}
    assert [one for one in files if one.startswith(("opt/", "etc/", "usr/lib/cni/", "var/"))] == []
    for path in (
        "usr/share/man/man1/cni-py-install.1.gz",
        "usr/share/bash-completion/completions/cni-py",
        "usr/share/zsh/vendor-completions/_cni-py",
        "usr/share/fish/vendor_completions.d/cni-py.fish",
        "usr/share/doc/cni-py/examples/10-bridge.conflist",
        "usr/share/cni-py/schema/conflist.json",
        "usr/lib/tmpfiles.d/cni-py.conf",
        "lib/systemd/system/cni-py.service",
        "lib/systemd/system/cni-py-agent.service",
        "lib/systemd/system/cni-py-dhcp.socket",
    ):
        assert path in files, path
    text = (tree / "usr/share/cni-py/sbom.cdx.json").read_text()
    assert text == packages.deb(architecture).with_suffix(".cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {one["name"].replace("-", "_") for one in json.loads(text)["components"]}
    there = {one.name.split("-")[0] for one in (tree / "usr/lib/cni-py").glob("*.dist-info")}
    assert there <= listed
    assert {"glibc", "libgcc", "msgspec", "pyroute2"} <= listed


def test_lintian_finds_nothing(packages: Distributions) -> None:
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", str(packages.deb())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_reproducible(
    packages: Distributions, all_distributions: Distributions, tmp_path: Path
) -> None:
    """Under another umask, in another folder and at another time: the same bytes."""
    shutil.copytree(all_distributions.folder, tmp_path / "again")
    again = Distributions(tmp_path / "again")
    build(ROOT, again.folder, "deb", NATIVE, umask=0o077)
    assert filecmp.cmp(packages.deb(), again.deb(), shallow=False)


def test_install_and_purge(debian: DebianHost, packages: Distributions) -> None:
    """Beside the reference's package; and afterwards the host is as it was."""
    debian.run("mkdir", "-p", FOLDER)
    debian.run("cp", "/usr/lib/cni/bridge", "/usr/lib/cni/loopback", FOLDER)
    before = debian.files()
    debian.run("dpkg", "--install", deb(packages))
    assert debian.run("dpkg", "--verify", "cni-py", "containernetworking-plugins").stdout == ""
    version = debian.run("cni-py", "--version").stdout
    assert version == f"cni-py, version {packages.version}\n"
    debian.run("man", "--where", "cni-py-install")
    offered = debian.run(
        "cni-py",
        env={"_CNI_PY_COMPLETE": "bash_complete", "COMP_WORDS": "cni-py ins", "COMP_CWORD": "1"},
    )
    assert "plain,install" in offered.stdout
    debian.run("cni-py", "install", FOLDER)
    installed = debian.run("ls", FOLDER).stdout.split()
    assert set(EXECUTABLES) <= set(installed)
    name = container(debian, "c1")
    result = call(debian, "ADD", name).json
    assert result["ips"][0]["address"] == "10.1.2.2/24"
    debian.run("ip", "netns", "exec", name, "busybox", "ping", "-c", "1", "-W", "2", "10.1.2.1")
    serve(debian)
    call(debian, "CHECK", name, result)
    shown = debian.run("cni-py", "show", "--json")
    assert '"c1"' in shown.stdout
    call(debian, "DEL", name)
    for one in debian.background:
        one.stop()
    debian.run("dpkg", "--remove", "cni-py")
    debian.run("dpkg", "--purge", "cni-py")
    after = debian.files()
    changed = {one for one in before.keys() | after.keys() if before.get(one) != after.get(one)}
    # The reference's own state, and what an interpreter or a log keeps, are not the package's.
    ours = {
        one
        for one in changed
        if not one.startswith(("/var/lib/cni/networks/", "/usr/lib/python3/"))
    }
    assert {one for one in ours if not one.startswith("/var/lib/systemd/")} == set()


def test_upgrade_loses_no_call(debian: DebianHost, packages: Distributions, tmp_path: Path) -> None:
    """A stream of calls goes on while dpkg replaces the package, up and down again."""
    debian.run("dpkg", "--install", deb(packages))
    debian.run("cni-py", "install", FOLDER)
    server = serve(debian)
    names = [container(debian, f"c{index}") for index in range(4)]
    lasting = call(debian, "ADD", names[0]).json
    failed: list[Outcome] = []
    count = 0
    ended = threading.Event()

    def keep_calling() -> None:
        nonlocal count
        while not ended.is_set():
            for name in names[1:]:
                for verb in ("ADD", "DEL"):
                    outcome = call(debian, verb, name, check=False)
                    count += 1
                    if outcome.status != 0:
                        failed.append(outcome)

    calling = threading.Thread(target=keep_calling)
    calling.start()
    try:
        built = newer(packages.deb(), tmp_path, "99")
        copying = [*debian.prefix, "sh", "-c", "cat > /newer.deb"]
        subprocess.run(copying, input=built.read_bytes(), check=True)
        for package in ("/newer.deb", deb(packages)):
            debian.run("dpkg", "--install", "--force-downgrade", package)
            # What postinst does where systemd runs.
            seen = len(server.lines)
            server.process.send_signal(1)
            server.wait_for(lambda line: line["event"] == "listening", seen)
            call(debian, "CHECK", names[0], lasting)
    finally:
        ended.set()
        calling.join()
    assert failed == []
    assert count > 10
    call(debian, "DEL", names[0])
