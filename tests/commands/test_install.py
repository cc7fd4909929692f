"""`cni-py install` and `uninstall`: what is written, kept, put back, and left alone."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni_py import __version__
from cni_py.skel import EXECUTABLES
from fixtures.builds import PACKAGES, build, command, site
from fixtures.configs import l3
from fixtures.host import ROOT
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from fixtures.host import Host, Outcome

BIN = "/opt/cni/bin"
NET_DIR = "/etc/cni/net.d"
SOCKET = "/run/cni-py/cni.sock"
UNITS = ("cni-dhcp.service", "cni-dhcp.socket", "cni-py.service", "cni-py.socket")
NETWORK = {"cniVersion": "1.1.0", "name": "own", "plugins": [l3()]}


def install(host: Host, *options: str, check: bool = True, cni_py: str = CNI_PY) -> Outcome:
    return host.run(cni_py, "install", *options, check=check)


def uninstall(host: Host, *options: str) -> dict[str, list[str]]:
    """What became of each file, by action."""
    return by_action(host.run(CNI_PY, "uninstall", *options, "--json"))


def by_action(outcome: Outcome) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in outcome.json:
        found.setdefault(one["action"], []).append(one["path"])
    return found


def everything(host: Host, *folders: str) -> list[str]:
    """Each file with kind, mode, owner, time, target and content; folders without their time."""
    places = shlex.join(folders or ("/opt/cni", "/etc/cni"))
    form = shlex.quote("%y %m %U:%G %T@ %p %l\\n")
    found = host.run("sh", "-c", f"find {places} ! -type d -printf {form} | sort").stdout
    found += host.run("sh", "-c", f"find {places} -type d -printf '%m %U:%G %p\\n' | sort").stdout
    found += host.run("sh", "-c", f"find {places} -type f | sort | xargs -r sha256sum").stdout
    return found.splitlines()


def reference_plugins(host: Host) -> None:
    """Executables of others: two of our names, one a link, and one that is none of ours."""
    host.run(
        "sh",
        "-ec",
        f"cd {BIN}; echo 'echo of others' > bridge; chmod 2750 bridge; chown 7:8 bridge\n"
        "touch -d 2020-02-03T04:05:06.789 bridge\n"
        "ln -s ../elsewhere/ptp ptp; echo calico > calico; chmod 700 .",
    )


def test_dry_run(host: Host) -> None:
    """It tells what an installation then does, and changes nothing."""
    reference_plugins(host)
    host.run("cp", str(ROOT / "bin" / "vlan"), BIN)
    before = everything(host)
    options = ("--conf", "10-bridge", "--json")
    planned = install(host, "--dry-run", *options)
    assert everything(host) == before
    assert by_action(planned)["kept"] == [f"{BIN}/bridge", f"{BIN}/ptp"]
    assert by_action(planned)["replaced"] == [f"{BIN}/vlan"]
    assert planned.json == install(host, *options).json
    again = install(host, "--dry-run", *options)
    assert set(by_action(again)) == {"same"}
    removal = host.run(CNI_PY, "uninstall", "--dry-run", "--json")
    assert by_action(removal)["restored"] == [f"{BIN}/bridge", f"{BIN}/ptp"]
    assert removal.json == host.run(CNI_PY, "uninstall", "--json").json


def test_nothing_is_made_for_a_dry_run(host: Host) -> None:
    assert (
        "new      /opt/cni/other/bin/vrf\n"
        in install(host, "/opt/cni/other/bin", "--dry-run").stdout
    )
    assert host.run("ls", "/opt/cni").stdout.split() == ["bin"]


def test_uninstall_leaves_it_as_it_was(host: Host, tmp_path: Path) -> None:
    """Modes, owners, times and links, also after several installations of several builds."""
    reference_plugins(host)
    before = everything(host)
    other = build(tmp_path / "other", "9.9.9")
    for cni_py in (CNI_PY, other, other, CNI_PY):
        install(host, "--conf", "10-bridge", cni_py=cni_py)
    assert host.run(f"{BIN}/bridge", env={"CNI_COMMAND": "VERSION"}).json["supportedVersions"]
    found = uninstall(host)
    assert found["restored"] == [f"{BIN}/bridge", f"{BIN}/ptp"]
    assert f"{NET_DIR}/10-bridge.conflist" in found["removed"]
    assert everything(host) == before


def test_uninstall_without_anything_before(host: Host) -> None:
    """Folders that were made go too; a second removal finds nothing."""
    host.run("rmdir", BIN, NET_DIR)
    before = everything(host)
    install(host, "--conf", "10-bridge")
    assert host.run(CNI_PY, "uninstall").stdout.startswith(f"removed  {NET_DIR}/10-bridge")
    assert everything(host) == before


def test_what_others_changed_since(host: Host) -> None:
    """It stays, and is told; a newer one of others is what the next installation keeps."""
    reference_plugins(host)
    install(host, "--conf", "10-bridge")
    script = f"cd {BIN}; echo newer > b; mv b bridge; echo '#' >> .cni-py/tap; echo '' >> "
    host.run("sh", "-ec", f"{script} {NET_DIR}/10-bridge.conflist; rm vlan")
    changed = [f"{NET_DIR}/10-bridge.conflist", f"{BIN}/bridge", f"{BIN}/.cni-py/tap"]
    assert uninstall(host, "--dry-run")["left"] == changed
    newer = install(host, "--json")
    assert by_action(newer)["kept"] == [f"{BIN}/bridge"]
    assert by_action(newer)["replaced"] == [f"{BIN}/.cni-py/tap"]
    assert by_action(newer)["new"] == [f"{BIN}/vlan"]
    host.run("sh", "-c", f"echo newest > {BIN}/ptp")
    outcome = host.run(CNI_PY, "uninstall")
    assert f"left     {BIN}/ptp (somebody else has changed it since)" in outcome.stdout
    assert host.run("sh", "-c", f"cd {BIN}; ls -A; cat bridge ptp").stdout.split() == [
        *("bridge", "calico", "ptp"),
        *("newer", "newest"),
    ]
    assert host.run("ls", NET_DIR).stdout == "10-bridge.conflist\n"


def test_a_link_to_the_folder_of_the_distribution(host: Host) -> None:
    """/opt/cni/bin is a link on some hosts: it stays one."""
    host.run("sh", "-c", f"rmdir {BIN}; mkdir /opt/cni/real; ln -s real {BIN}")
    install(host)
    assert host.run("readlink", BIN).stdout == "real\n"
    uninstall(host)
    assert host.run("ls", "-A", "/opt/cni/real").stdout == ""


def test_launcher_only_and_back(host: Host) -> None:
    reference_plugins(host)
    before = everything(host)
    install(host)
    found = by_action(install(host, "--launcher-only", "--json"))
    assert found == {
        "replaced": [f"{BIN}/{name}" for name in EXECUTABLES],
        "removed": [f"{BIN}/.cni-py/{name}" for name in EXECUTABLES],
    }
    assert len(by_action(install(host, "--json"))["new"]) == len(EXECUTABLES)
    install(host, "--launcher-only")
    env = {"CNI_COMMAND": "STATUS", "CNI_PATH": BIN, "CNI_PY_SOCKET": "/run/nobody.sock"}
    outcome = host.run(f"{BIN}/bridge", stdin=json.dumps(l3()), env=env, check=False)
    assert (outcome.status, outcome.json["code"]) == (1, 50)
    host.serve()
    host.run(f"{BIN}/bridge", stdin=json.dumps(l3()), env=env | {"CNI_PY_SOCKET": SOCKET})
    uninstall(host)
    assert everything(host) == before


def test_without_a_record(host: Host) -> None:
    """Of an earlier version, or where it is damaged: executables are known by their mark."""
    reference_plugins(host)
    before = everything(host)
    install(host)
    host.run("sh", "-c", f"echo '{{' > {BIN}/.cni-py/record.json")
    looked = host.run(CNI_PY, "uninstall", "--dry-run")
    assert "record.json is damaged" in looked.stderr
    outcome = host.run(CNI_PY, "uninstall")
    assert "set aside" in outcome.stderr
    assert everything(host) == before


# A network's configuration.


def test_configuration(host: Host, tmp_path: Path) -> None:
    """One's own, with its mode; what install has written it replaces, and nothing else."""
    path = tmp_path / "20-own.conflist"
    path.write_text(json.dumps(NETWORK))
    path.chmod(0o600)
    there = f"{NET_DIR}/20-own.conflist"
    assert install(host, "--conf", str(path)).stdout.splitlines()[-1] == f"new      {there}"
    assert host.run("stat", "-c", "%a", there).stdout == "600\n"
    assert f"same     {there}" in install(host, "--conf", str(path)).stdout
    # What install has written it may replace; what somebody has changed it may not.
    path.write_text(json.dumps(NETWORK | {"name": "other"}))
    assert f"replaced {there}" in install(host, "--conf", str(path)).stdout
    host.run("sh", "-c", f"echo '{json.dumps(NETWORK)}' > {there}")
    before = everything(host)
    refused = install(host, "--conf", str(path), check=False)
    assert (refused.status, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"cni-py install: {there} is there, differs, and is not what cni-py install has written: "
        "move it away, or have it replaced with --force\n"
    )
    assert everything(host) == before
    assert f"kept     {there}" in install(host, "--conf", str(path), "--force").stdout
    assert uninstall(host)["restored"] == [there]
    assert host.run("cat", there).json == NETWORK


def test_beside_other_configurations(host: Host, tmp_path: Path) -> None:
    """What does not fit together is told; lint says the same of the folder."""
    there = json.dumps(NETWORK)
    host.run("sh", "-c", f"echo {shlex.quote(there)} > {NET_DIR}/10-there.conflist")
    path = tmp_path / "20-own.conflist"
    path.write_text(there)
    outcome = install(host, "--conf", str(path))
    assert re.search(r"20-own.conflist:\d+:\d+: warning: .*10-there.conflist", outcome.stderr)


def test_a_configuration_that_was_there(host: Host, tmp_path: Path) -> None:
    """The same one, of somebody else: it stays when ours go."""
    path = tmp_path / "20-own.conflist"
    path.write_text(json.dumps(NETWORK))
    host.run("cp", str(path), NET_DIR)
    assert f"same     {NET_DIR}/20-own.conflist" in install(host, "--conf", str(path)).stdout
    uninstall(host)
    assert host.run("ls", NET_DIR).stdout == "20-own.conflist\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("20-own.conf", "{}", "20-own.conf does not end in .conflist: a list of plugins is needed"),
        ("20-own.conflist", "{", "20-own.conflist:1:"),
        ("20-own.conflist", json.dumps(NETWORK | {"name": "-"}), "error: "),
        ("missing.conflist", None, "missing.conflist: No such file or directory"),
        ("bridge", None, "there is no file bridge, nor an example: 10-bridge, 11-isolated"),
    ],
)
def test_wrong_configurations(
    host: Host, tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    """They are found before anything is written."""
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    given = name if name == "bridge" else str(path)
    before = everything(host)
    refused = install(host, "--conf", given, check=False)
    assert refused.status == 1
    assert refused.stderr.startswith("cni-py install: ")
    assert says in refused.stderr
    assert everything(host) == before


# systemd.


@pytest.fixture
def etc(host: Host) -> Host:
    """A host with systemd's folders of its own, where it does not run."""
    for folder in ("/etc/systemd", "/etc/tmpfiles.d"):
        if host.run("test", "-d", folder, check=False).status:
            pytest.skip(f"this machine has no {folder}")
        host.run("mount", "-n", "-t", "tmpfs", "none", folder)
    return host


def test_units(etc: Host) -> None:
    """They start what was installed, and systemd finds nothing wrong with them."""
    outcome = install(etc, "--systemd", "/opt/cni/other")
    assert outcome.stderr == (
        "systemd does not run here: later, "
        "systemctl enable --now cni-py.socket cni-py.service cni-dhcp.socket\n"
    )
    folder = "/etc/systemd/system"
    assert etc.run("ls", folder).stdout.split() == list(UNITS)
    started = etc.run("sh", "-c", f"grep -h ^ExecStart= {folder}/*").stdout.splitlines()
    assert started == [
        "ExecStart=/opt/cni/other/dhcp daemon",
        f"ExecStart={CNI_PY} serve --restore-rules",
    ]
    for name in UNITS:
        verified = etc.run("systemd-analyze", "verify", f"{folder}/{name}")
        assert name.partition(".")[0] not in verified.stderr, verified
    etc.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/cni-py.conf")
    modes = etc.run("stat", "-c", "%a", "/run/cni-py", "/var/lib/cni/cni-py").stdout
    assert modes.split() == ["700", "700"]
    assert f"{folder}/cni-py.service" in uninstall(etc, "/opt/cni/other")["removed"]
    assert etc.run("find", "/etc/systemd", "/etc/tmpfiles.d", "-type", "f").stdout == ""


def test_the_agents_unit(etc: Host) -> None:
    """Where it is asked for; an upgrade that does not ask keeps it true."""
    path = "/etc/systemd/system/cni-py-agent.service"
    assert "give --systemd too" in install(etc, "--agent", check=False).stderr
    planned = install(etc, "--systemd", "--agent", "--dry-run")
    assert f"new      {path}\n" in planned.stdout
    assert planned.stderr.endswith("cni-dhcp.socket cni-py-agent.service\n")
    assert etc.run("test", "-e", path, check=False).status == 1
    install(etc, "--systemd", "--agent")
    assert f"ExecStart={CNI_PY} agent\n" in etc.run("cat", path).stdout
    verified = etc.run("systemd-analyze", "verify", "--man=no", path)
    assert "cni-py-agent" not in verified.stderr, verified
    again = install(etc, "--systemd", "--json")
    assert path in by_action(again)["same"]
    assert "cni-py-agent" in again.stderr
    assert path in uninstall(etc)["removed"]
    assert etc.run("find", "/etc/systemd", "-type", "f").stdout == ""


@pytest.mark.parametrize(
    ("unit", "most"),
    [("cni-py.service", 5.4), ("cni-dhcp.service", 5.0), ("cni-py-agent.service", 3.2)],
)
def test_sandbox(unit: str, most: float) -> None:
    """As systemd counts it: 10 is nothing at all, 0 everything.

    The server's may change to dnsmasq's user, and end it: 0.3 (docs/decisions/0048-names.md).
    """
    analyze = ("systemd-analyze", "security", "--offline=yes", "--no-pager")
    path = str(ROOT / "conf" / "systemd" / unit)
    done = subprocess.run([*analyze, path], capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done
    assert float(found[1]) <= most


def test_units_of_others(etc: Host) -> None:
    etc.run(
        "sh", "-c", "mkdir /etc/systemd/system; echo '[Unit]' > /etc/systemd/system/cni-py.service"
    )
    refused = install(etc, "--systemd", check=False)
    assert refused.status == 1
    assert "/etc/systemd/system/cni-py.service is there, differs" in refused.stderr
    assert etc.run("ls", "-A", BIN).stdout == ""
    install(etc, "--systemd", "--force")
    uninstall(etc)
    assert etc.run("cat", "/etc/systemd/system/cni-py.service").stdout == "[Unit]\n"


def test_a_unit_cannot_name_it(etc: Host, tmp_path: Path) -> None:
    cni_py = command(tmp_path / "100%" / "cni-py")
    refused = install(etc, "--systemd", cni_py=cni_py, check=False)
    assert "cannot be named in a unit of systemd" in refused.stderr
    assert etc.run("ls", "-A", BIN).stdout == ""


SYSTEMCTL = """#!/bin/sh
echo "$(basename $0) $*" >> /run/called
[ ! -e /run/fails ] || { echo 'Unit is masked.' >&2; exit 1; }
"""


def test_where_systemd_runs(etc: Host) -> None:
    """Its commands, in their order; what fails of them is told, and the files stay."""
    etc.run(
        "sh",
        "-c",
        "mkdir -p /run/systemd/system /run/own; cat > /run/own/systemctl",
        stdin=SYSTEMCTL,
    )
    etc.run("sh", "-c", "cd /run/own; chmod +x systemctl; ln systemctl systemd-tmpfiles")

    def called(*arguments: str, check: bool = True) -> tuple[list[str], Outcome]:
        etc.run("sh", "-c", ": > /run/called")
        env = {"PATH": "/run/own:/usr/bin:/bin"}
        outcome = etc.run("env", f"PATH={env['PATH']}", CNI_PY, *arguments, check=check)
        return etc.run("cat", "/run/called").stdout.splitlines(), outcome

    begin = [
        "systemd-tmpfiles --create /etc/tmpfiles.d/cni-py.conf",
        "systemctl daemon-reload",
        "systemctl enable --now cni-py.socket cni-py.service cni-dhcp.socket",
    ]
    restarts = ["systemctl restart cni-py.service", "systemctl try-restart cni-dhcp.service"]
    assert called("install", "--systemd", "--dry-run")[0] == []
    assert called("install", "--systemd")[0] == begin + restarts
    reload = "systemctl reload cni-py.service"
    assert called("install", "--systemd")[0] == [*begin, reload]
    agent = ["systemctl enable cni-py-agent.service", "systemctl restart cni-py-agent.service"]
    assert called("install", "--systemd", "--agent")[0] == [*begin, reload, *agent]
    assert called("install", "--systemd")[0] == [*begin, reload, *agent]
    assert called("install")[0] == []
    etc.run("touch", "/run/fails")
    _, failed = called("install", "--systemd", check=False)
    assert failed.status == 1
    assert "the files are in place, but: systemd-tmpfiles --create" in failed.stderr
    etc.run("rm", "/run/fails")
    names = ["cni-py.socket", "cni-py.service", "cni-dhcp.socket", "cni-dhcp.service"]
    names.append("cni-py-agent.service")
    assert called("uninstall")[0] == [
        f"systemctl disable --now {shlex.join(names)}",
        "systemctl daemon-reload",
    ]


# Where it was installed from, and into.


def virtual_environment(path: Path) -> str:
    """As `python -m venv` and `pip install` leave it: the command line in it."""
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(path)], check=True)
    (folder,) = path.glob("lib/python3*/site-packages")
    site(folder, packages=(*PACKAGES, "click"))
    return command(path / "bin" / "cni-py", folder, python=f"{path}/bin/python -B")


def test_pipx(etc: Host, tmp_path: Path) -> None:
    """A link in PATH leads into a virtual environment: the unit names the link."""
    virtual_environment(tmp_path / "venvs" / "cni-py")
    link = tmp_path / "cni-py"
    link.symlink_to("venvs/cni-py/bin/cni-py")
    install(etc, "--systemd", cni_py=str(link))
    unit = etc.run("cat", "/etc/systemd/system/cni-py.service").stdout
    assert f"ExecStart={link} serve" in unit
    lines = etc.run("cat", f"{BIN}/.cni-py/bridge").stdout.splitlines()
    assert lines[0] == f"#!{tmp_path}/venvs/cni-py/bin/python -IS"
    env = {"CNI_COMMAND": "VERSION", "CNI_PY_SOCKET": ""}
    assert etc.run(f"{BIN}/bridge", env=env).json["cniVersion"] == "1.1.0"


@pytest.fixture
def image(host: Host, tmp_path: Path) -> Path:
    """An image with the machine's programs, in which /opt is a link."""
    for name in ("usr", "var/opt", "proc"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path(f"/{name}").is_symlink():
            (tmp_path / name).symlink_to(f"usr/{name}")
    (tmp_path / "opt").symlink_to("/var/opt")
    host.run("mount", "--rbind", "/usr", str(tmp_path / "usr"))
    return tmp_path


def test_image(host: Host, image: Path) -> None:
    """Paths are as they are called inside, where it then works; nothing gets out of the image."""
    cni_py = virtual_environment(image / "var" / "opt" / "cni-py")
    outcome = install(
        host, "--root", str(image), "--systemd", "--conf", "10-bridge", "--json", cni_py=cni_py
    )
    assert f"systemctl --root={image} enable" in outcome.stderr
    found = by_action(outcome)["new"]
    assert found[-1] == f"{NET_DIR}/10-bridge.conflist"
    unit = (image / "etc/systemd/system/cni-py.service").read_text()
    assert "ExecStart=/var/opt/cni-py/bin/cni-py serve" in unit
    for path in (image / "var/opt/cni/bin").rglob("*"):
        if path.is_file():
            assert bytes(image) not in path.read_bytes(), path
    host.run("mount", "-t", "proc", "none", str(image / "proc"))
    env = {"CNI_COMMAND": "VERSION", "CNI_PY_SOCKET": ""}
    inside = host.run("chroot", str(image), f"{BIN}/bridge", env=env)
    assert inside.json["cniVersion"] == "1.1.0"
    assert host.run("find", BIN, NET_DIR, "-type", "f").stdout == ""
    host.run(cni_py, "uninstall", "--root", str(image))
    assert sorted(one.name for one in (image / "var").iterdir()) == ["opt"]
    assert [one.name for one in (image / "var/opt").iterdir()] == ["cni-py"]
    assert not (image / "etc").exists()


def test_image_without_cni_py(host: Host, image: Path) -> None:
    """Executables there would lead nowhere; launchers need nothing."""
    refused = install(host, "--root", str(image), check=False)
    assert refused.status == 1
    assert f"{image} has no /" in refused.stderr
    assert "install cni-py into it first" in refused.stderr
    assert not (image / "var/opt/cni").exists()
    install(host, "--root", str(image), "--launcher-only")
    assert len(list((image / "var/opt/cni/bin").glob("[a-z]*"))) == len(EXECUTABLES)


def test_doctor(host: Host, tmp_path: Path) -> None:
    """It tells what was changed, what is missing and what is old, with the remedy."""
    install(host, "--conf", "10-bridge")

    def found() -> list[str]:
        findings = host.run(CNI_PY, "doctor", "--json", check=False).json
        own = [one for one in findings if one["subject"] == "installation"]
        return [one["text"] for one in own if one["severity"] not in ("ok", "unseen")]

    assert found() == []
    host.run("sh", "-ec", f"cd {BIN}; echo '#' >> .cni-py/tap; rm .cni-py/vrf vlan; echo > ptp")
    assert found() == [
        f"{BIN}/ptp is not cni-py's",
        f"{BIN}/vlan is missing",
        f"{BIN}/.cni-py/tap was changed after it had been installed",
        f"{BIN}/.cni-py/vrf was installed and is missing",
    ]
    install(host, cni_py=build(tmp_path / "other", "9.9.9"))
    assert found() == [f"{BIN} was installed by cni-py 9.9.9, and this is {__version__}"]
    install(host)
    record = f"{BIN}/.cni-py/record.json"
    host.run("sed", "-i", 's#"python": ".*"#"python": "/gone/python"#', record)
    assert found() == [f"/gone/python, which {BIN} was installed from, is gone"]
    host.run("rm", record)
    assert found() == [f"{BIN} has no record of its installation"]
