"""bridge as the caller of an IPAM plugin that is not ours (spec.md 12)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.configs import V4, host_local, ipam, l3
from fixtures.dump import differences, dump
from fixtures.host import BIN, Container, Host, Outcome, refusal
from fixtures.leaks import leaks

REFERENCE = Path("/usr/lib/cni")
CONFIG = l3(ipam={"type": "own"})
# An address of host-local's, and what leads to it.
ALLOCATION = (
    "file /var/lib/cni/networks/net1/10.1.2.2",
    "file /var/lib/cni/networks/.cni-py/net1/owners/",
)
IP = {"address": "10.1.2.7/24", "gateway": "10.1.2.1"}
RESULT = json.dumps({"cniVersion": "1.1.0", "ips": [IP]})
_SECONDS = 20

# It notes down how it was called; then the test's own lines for the verb run.
DELEGATE = """#!/bin/sh
echo "$CNI_COMMAND" >> /mnt/seen/verbs
cat > "/mnt/seen/$CNI_COMMAND.stdin"
tr '\\0' '\\n' < /proc/$$/environ | grep -v CNI_PY_SOCKET > "/mnt/seen/$CNI_COMMAND.environ"
readlink /proc/$$/ns/net > "/mnt/seen/$CNI_COMMAND.netns"
[ $# = 0 ] || exit 99
[ ! -e "/mnt/answers/$CNI_COMMAND" ] || . "/mnt/answers/$CNI_COMMAND"
"""


class Delegate:
    """The executable `own`, first in CNI_PATH of the host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.run("mount", "-t", "tmpfs", "none", "/mnt")
        host.run("mkdir", "/mnt/bin", "/mnt/seen", "/mnt/answers", "/mnt/other")
        self.install("/mnt/bin/own")
        host.path = f"/mnt/bin:{BIN}"
        self.answer("ADD", f"echo '{RESULT}'")

    def install(self, path: str) -> None:
        self.host.run("tee", path, stdin=DELEGATE)
        self.host.run("chmod", "755", path)

    def answer(self, verb: str, script: str) -> None:
        """What to do for a verb; nothing and success without it."""
        self.host.run("tee", f"/mnt/answers/{verb}", stdin=script)

    def seen(self, name: str) -> str:
        return self.host.run("cat", f"/mnt/seen/{name}", check=False).stdout

    @property
    def verbs(self) -> list[str]:
        return self.seen("verbs").split()


@pytest.fixture
def own(host: Host) -> Delegate:
    return Delegate(host)


def failing_add(host: Host, own: Delegate, config: Any = CONFIG, **env: str) -> Outcome:
    """An ADD that must fail, whose delegate then saw DEL, and of which nothing is left."""
    container = host.container(f"c{len(host.ip('netns', 'list'))}")
    before, inside = dump(host), container.ip("link")
    outcome = host.call("bridge", "ADD", config, container, env=env)
    assert outcome.status != 0, outcome
    assert "Traceback" not in outcome.stderr
    assert differences(before, dump(host)) == ""
    assert container.ip("link") == inside
    assert own.verbs[-2:] in ([], ["ADD", "DEL"])
    return outcome


@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C"}, {"LC_ALL": "POSIX"}], ids=str)
def test_input_and_environment(host: Host, own: Delegate, locale: dict[str, str]) -> None:
    """[DG-01] [DG-02] [DG-03] [DG-07] [DG-09] [X-03] [GE-04] All as it came, but for the verb."""
    container = host.container("c1")
    extra = {
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=a",
        "TRACEPARENT": "00-1-2-01",
        "ODD": "a\nb=\u00e9",
        "BYTES": os.fsdecode(b"\xff\xfe"),
        **locale,
    }
    result = host.add("bridge", CONFIG, container, env=extra)
    assert result["ips"] == [{"interface": 2, **IP}]
    texts = {
        verb: f' {{"x":  "\u00e9\\u00e9", "n": 1e3,\n"verb": "{verb}", {json.dumps(keys)[1:]}\t'
        for verb, keys in {
            "CHECK": CONFIG | {"prevResult": result},
            "STATUS": CONFIG,
            "GC": CONFIG | {"cni.dev/valid-attachments": []},
            "DEL": CONFIG | {"prevResult": result},
            "ADD": CONFIG,
        }.items()
    }
    own_netns = host.run("readlink", "/proc/self/ns/net").stdout
    for verb, text in texts.items():
        outcome = host.call("bridge", verb, text, container, env=extra)
        assert outcome.status == 0, outcome
        assert own.seen(f"{verb}.stdin") == text
        given = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "id-c1",
            "CNI_NETNS": "/run/netns/c1",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": host.path,
            **extra,
        }
        raw = b"\n".join(os.fsencode(f"{key}={value}") for key, value in given.items())
        expected = sorted(raw.decode(errors="replace").splitlines())
        assert sorted(own.seen(f"{verb}.environ").splitlines()) == expected
        assert own.seen(f"{verb}.netns") == own_netns


def test_standard_error_is_forwarded(host: Host, own: Delegate) -> None:
    """[DG-06] On success and on failure."""
    own.answer("ADD", """echo last words >&2; echo '{"code": 100, "msg": "m"}'; exit 1""")
    assert "last words\n" in failing_add(host, own).stderr
    own.answer("ADD", f"echo notes of ADD >&2; echo '{RESULT}'")
    own.answer("DEL", "echo notes of DEL >&2")
    container = host.container("c1")
    outcome = host.call("bridge", "ADD", CONFIG, container)
    assert (outcome.status, outcome.stderr) == (0, "notes of ADD\n")
    outcome = host.call("bridge", "DEL", CONFIG, container)
    assert (outcome.status, outcome.stderr) == (0, "notes of DEL\n")


ERROR = """echo '{"cniVersion":"1.1.0","code":%s,"msg":"%s","details":"d"}'; exit %s"""


@pytest.mark.parametrize(
    ("script", "code", "msg"),
    [
        (ERROR % (7, "m", 1), 7, "m"),
        (ERROR % (11, "m", 3), 11, "m"),
        (ERROR % (123, "m", 1), 123, "m"),
        ("exit 3", 0, "netplugin failed with no error message: exit status 3"),
        ("echo 'why \"so\"' >&2; exit 3", 0, 'netplugin failed: "why \\"so\\"\\n": exit status 3'),
        ("kill -9 $$", 0, "netplugin failed with no error message: signal: 9"),
        ("echo no; exit 1", 0, "netplugin failed but error parsing its diagnostic message"),
        ("echo '[]'; exit 1", 0, "netplugin failed but error parsing its diagnostic message"),
        ('echo \'{"code":"7"}\'; exit 1', 0, "netplugin failed but error parsing its diagnostic"),
        ('echo \'{"code":-7}\'; exit 1', 0, "netplugin failed but error parsing its diagnostic"),
        (f"echo '{RESULT}'; exit 1", 0, "the plugin failed without a message"),
        ("echo no", 6, "failed to unmarshal raw result: "),
        ("true", 6, "failed to unmarshal raw result: "),
        ("echo '[]'", 6, "failed to unmarshal raw result: expected a result object"),
        (f"echo '{RESULT}' '{RESULT}'", 6, "failed to unmarshal raw result: "),
        ("echo '{\"cniVersion\":\"7.0.0\"}'", 6, 'unsupported CNI result version "7.0.0"'),
        ("echo '{\"ips\":[{\"address\":\"10.1.2.7\"}]}'", 6, "$.ips[0].address: invalid CIDR"),
        ("echo '{\"ips\":[null]}'", 6, "$.ips[0]"),
        ("echo null", 999, "IPAM plugin returned missing IP config"),
        ("echo '{}'", 999, "IPAM plugin returned missing IP config"),
        ("echo '{\"code\":7,\"msg\":\"m\"}'", 999, "IPAM plugin returned missing IP config"),
    ],
)  # fmt: skip
def test_failing_add(host: Host, own: Delegate, script: str, code: int, msg: str) -> None:
    """[A-07] [D-05] [X-12] [X-13] [X-30] [P-06] The delegate's answer counts, and is undone."""
    own.answer("ADD", script)
    outcome = failing_add(host, own)
    error = refusal(outcome)
    assert error["code"] == code, error
    assert msg in error["msg"]
    assert own.verbs == ["ADD", "DEL"]
    assert own.seen("ADD.stdin") == own.seen("DEL.stdin") == json.dumps(CONFIG)
    without_verb = [own.seen(f"{one}.environ").splitlines() for one in ("ADD", "DEL")]
    assert {*without_verb[0]} ^ {*without_verb[1]} == {"CNI_COMMAND=ADD", "CNI_COMMAND=DEL"}


def test_delegate_that_is_killed_after_it_has_allocated(host: Host, own: Delegate) -> None:
    """[W-G5] Its DEL is called, and nothing is left of either."""
    container = host.container("c1")
    for verb in ("ADD", "DEL"):
        script = f"{BIN}/host-local < /mnt/seen/{verb}.stdin > /mnt/seen/{verb}.result"
        own.answer(verb, script + "; kill -9 $$" * (verb == "ADD"))
    config = l3(isGateway=True, ipMasq=True, ipam=host_local() | {"type": "own"})
    error = refusal(host.call("bridge", "ADD", config, container))
    assert error["msg"] == "netplugin failed with no error message: signal: 9"
    assert "10.1.2.2" in host.run("cat", "/mnt/seen/ADD.result").stdout
    assert own.verbs == ["ADD", "DEL"]
    assert host.allocated("net1") == {}
    assert leaks(host) == []


def test_failing_add_whose_delegate_cannot_delete_either(host: Host, own: Delegate) -> None:
    """[A-07] The first error is the answer; the second goes to stderr."""
    own.answer("ADD", ERROR % (101, "first", 1))
    own.answer("DEL", ERROR % (102, "second", 1))
    outcome = failing_add(host, own)
    assert (outcome.json["code"], outcome.json["msg"]) == (101, "first")
    assert "second" in outcome.stderr


OLD = {"ip4": {"ip": "10.1.2.7/24", "gateway": "10.1.2.1"}, "dns": {}}
MIDDLE = {"ips": [{"version": "4", **IP}], "dns": {}}


@pytest.mark.parametrize("version", ["0.2.0", "0.4.0", "1.1.0"])
@pytest.mark.parametrize(
    "printed",
    [
        {"cniVersion": "0.1.0", **OLD},
        {"cniVersion": "0.2.0", **OLD},
        {"cniVersion": "0.3.1", **MIDDLE},
        {"CNIVersion": "0.4.0", **MIDDLE},
        {"cniVersion": "1.0.0", "ips": [IP], "interfaces": None, "other": 1},
        {"cniVersion": "1.1.0", "ips": [{**IP, "interface": -1}]},
        {"cniVersion": None},
        {"cniVersion": ""},
        {"cniVersion": 5},
    ],
    ids=lambda one: str(next(iter(one.values()))),
)
def test_result_of_another_version(
    host: Host, own: Delegate, printed: dict[str, Any], version: str
) -> None:
    """[X-31] [8.5] The result's own version counts, else the configuration's."""
    if len(printed) == 1:
        printed = printed | (OLD if version == "0.2.0" else MIDDLE)
    own.answer("ADD", f"echo '{json.dumps(printed)}'")
    result = host.add("bridge", CONFIG | {"cniVersion": version}, host.container("c1"))
    assert result["cniVersion"] == version
    expected = {
        "0.2.0": OLD["ip4"],
        "0.4.0": {"version": "4", "interface": 2, **IP},
        "1.1.0": {"interface": 2, **IP},
    }
    assert (result["ip4"] if version == "0.2.0" else result["ips"][0]) == expected[version]


def test_worked_vector(host: Host, own: Delegate) -> None:
    """[8.7] [D1] [D2] What three versions can say of one result."""
    decided = {
        "cniVersion": "1.1.0",
        "ips": [
            {"address": "2001:db8::5/64", "gateway": "2001:db8::1"},
            {"address": "198.51.100.9/25"},
            {"address": "203.0.113.9/24", "gateway": "203.0.113.1"},
        ],
        "routes": [
            {"dst": "192.0.2.0/24", "priority": 50, "table": 254},
            {"dst": "2001:db8:1::/48", "gw": "2001:db8::fe", "mtu": 1400},
        ],
    }
    own.answer("ADD", f"echo '{json.dumps(decided)}'")
    results = {
        version: host.add("bridge", CONFIG | {"cniVersion": version}, host.container(name))
        for name, version in (("c1", "1.1.0"), ("c2", "0.4.0"), ("c3", "0.2.0"))
    }
    ips = [{"interface": 2, **one} for one in decided["ips"]]
    assert results["1.1.0"]["ips"] == ips
    families = ("6", "4", "4")
    assert results["0.4.0"]["ips"] == [
        {"version": family, **one} for family, one in zip(families, ips, strict=True)
    ]
    assert results["1.1.0"]["routes"] == results["0.4.0"]["routes"] == decided["routes"]
    assert results["0.2.0"] == {
        "cniVersion": "0.2.0",
        "ip4": {"ip": "198.51.100.9/25", "routes": [{"dst": "192.0.2.0/24"}]},
        "ip6": {
            "ip": "2001:db8::5/64",
            "gateway": "2001:db8::1",
            "routes": [{"dst": "2001:db8:1::/48", "gw": "2001:db8::fe"}],
        },
        "dns": {},
    }


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "STATUS", "GC"])
def test_errors_of_the_other_verbs(host: Host, own: Delegate, verb: str) -> None:
    """[DG-07] [S-05] [G-03] [G-04] [DL-05] They surface, after all else has been done."""
    container = host.container("c1")
    result = host.add("bridge", CONFIG, container)
    own.answer(verb, ERROR % (50, "m", 1))
    keys = {"prevResult": result} if verb in ("DEL", "CHECK") else {}
    config = CONFIG | keys | {"cni.dev/valid-attachments": []}
    error = refusal(host.call("bridge", verb, config, container))
    assert (error["code"], error["msg"], error["details"]) == (50, "m", "d")
    assert own.verbs == ["ADD", verb]
    assert len(host.ports()) == (verb in ("CHECK", "STATUS"))
    own.answer(verb, "true")


def test_deletion_without_a_namespace(host: Host, own: Delegate) -> None:
    """[DL-02] [DL-05] The delegate is told, also when all else is gone."""
    container = host.container("c1")
    host.add("bridge", CONFIG, container)
    container.delete_netns()
    host.delete("bridge", CONFIG, Container(host, container.id, ""))
    host.delete("bridge", CONFIG, container)
    assert own.verbs == ["ADD", "DEL", "DEL"]


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
@pytest.mark.parametrize("plugin", ["own", "host-local"])
def test_deletion_without_the_delegate(
    host: Host, own: Delegate, tmp_path: Path, kind: str, plugin: str
) -> None:
    """[DL-05] All but the address goes; the error makes the runtime ask again, which frees it."""
    config = (CONFIG if plugin == "own" else l3()) | {"type": kind, "ipMasq": True}
    for name in (kind, "host-local"):
        shutil.copy(BIN / name, tmp_path)
    host.path = f"{tmp_path}:/mnt/bin"
    place = "/mnt/bin/own" if plugin == "own" else f"{tmp_path}/host-local"
    container = host.container("c1")
    host.add(kind, config, container)
    host.run("mv", place, "/mnt/moved")
    for _ in range(2):
        error = refusal(host.call(kind, "DEL", config, container))
        assert error["msg"].startswith(f'failed to find plugin "{plugin}" in path [')
        assert [one["ifname"] for one in container.ip("link")] == ["lo"]
        assert [one for one in leaks(host) if not one.startswith(ALLOCATION)] == []
    assert own.verbs == (["ADD"] if plugin == "own" else [])
    assert list(host.allocated("net1")) == ([] if plugin == "own" else ["10.1.2.2"])
    host.run("mv", "/mnt/moved", place)
    host.delete(kind, config, container)
    assert own.verbs == (["ADD", "DEL"] if plugin == "own" else [])
    assert leaks(host) == []


@pytest.mark.usefixtures("own")
def test_delegate_that_does_not_read(host: Host) -> None:
    """[X-03] A megabyte of input for a delegate that closes its stdin is no failure."""
    host.run("tee", "/mnt/bin/own", stdin=f"#!/bin/sh\nexec <&-; echo '{RESULT}'\n")
    host.add("bridge", CONFIG | {"padding": "x" * 1_000_000}, host.container("c1"))


def _missing(host: Host) -> None:
    host.run("rm", "/mnt/bin/own")


def _folder(host: Host) -> None:
    host.run("sh", "-c", "rm /mnt/bin/own; mkdir /mnt/bin/own; ln -s nowhere /mnt/other/own")
    host.path = f"/mnt/bin:/mnt/other:{BIN}"


def _relative(host: Host) -> None:
    folder = os.path.relpath("/mnt/bin")
    assert host.run("test", "-x", f"{folder}/own").status == 0
    host.path = f"{folder}::.:{BIN}"


@pytest.mark.parametrize("how", [_missing, _folder, _relative])
def test_not_found(host: Host, own: Delegate, how: Callable[[Host], None]) -> None:
    """[F-01] [F-02] [F-04] Only regular files in absolute folders count."""
    how(host)
    error = refusal(failing_add(host, own))
    folders = " ".join(host.path.split(":"))
    expected = f'failed to find plugin "own" in path [{folders}]'
    assert (error["code"], error["msg"]) == (999, expected)
    assert own.verbs == []


@pytest.mark.parametrize("name", ["../bin/own", "/mnt/bin/own", ".", "..", "own\0"])
def test_name_that_is_a_path(host: Host, own: Delegate, name: str) -> None:
    """[F-01] [F-03] [GE-05]"""
    error = refusal(failing_add(host, own, l3(ipam={"type": name})))
    assert (error["code"], error["msg"]) == (7, f"invalid plugin name: {name}")
    assert own.verbs == []


def test_not_executable(host: Host, own: Delegate) -> None:
    """[F-02] [X-12] The first file counts, even when it cannot be run."""
    own.install("/mnt/other/own")
    host.path = f"/mnt/bin:/mnt/other:{BIN}"
    host.run("chmod", "644", "/mnt/bin/own")
    expected = "netplugin failed with no error message: /mnt/bin/own: "
    error = refusal(failing_add(host, own))
    assert (error["code"], error["msg"]) == (0, f"{expected}Permission denied")
    host.run("tee", "/mnt/bin/own", stdin="not a program")
    host.run("chmod", "755", "/mnt/bin/own")
    error = refusal(failing_add(host, own))
    assert (error["code"], error["msg"]) == (0, f"{expected}Exec format error")
    assert own.verbs == []
    host.run("ln", "-sf", "/mnt/other/own", "/mnt/bin/own")
    host.add("bridge", CONFIG, host.container("linked"))


def start(host: Host, container: Container) -> subprocess.Popen[bytes]:
    """An ADD that is under way, its input given."""
    environ = {
        "PATH": "/usr/bin:/bin",
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": container.id,
        "CNI_NETNS": container.netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": host.path,
    }
    command = [*host.prefix, f"{BIN}/bridge"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(CONFIG).encode())
    process.stdin.close()
    process.stdin = None
    return process


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _sleeps(pid: int) -> bool:
    """Whether a process waits for time to pass, and for nothing else."""
    return "nanosleep" in Path(f"/proc/{pid}/wchan").read_text()


def finish(process: subprocess.Popen[bytes]) -> Outcome:
    stdout, stderr = process.communicate(timeout=_SECONDS)
    return Outcome(process.returncode, stdout.decode(), stderr.decode())


def test_busy_executable(host: Host, own: Delegate) -> None:
    """[X-10] A delegate that is being installed is tried again, and used once it is written."""
    container = host.container("c1")
    with Path(f"/proc/{host.holder.pid}/root/mnt/bin/own").open("ab"):
        process = start(host, container)
        callers = [process.pid, *(host.server.workers() if host.server else ())]
        wait_for(lambda: any(_sleeps(one) for one in callers))
        assert own.verbs == []
    outcome = finish(process)
    assert outcome.json["ips"] == [{"interface": 2, **IP}]
    assert own.verbs == ["ADD"]
    host.delete("bridge", CONFIG, container)


@pytest.mark.slow
def test_executable_that_stays_busy(host: Host, own: Delegate) -> None:
    """[X-10] In the end it is an error, not an empty success."""
    with Path(f"/proc/{host.holder.pid}/root/mnt/bin/own").open("ab"):
        error = refusal(failing_add(host, own))
    assert (error["code"], own.verbs) == (0, [])
    assert error["msg"].endswith("/mnt/bin/own: Text file busy")


def test_interrupted_while_the_delegate_runs(host: Host, own: Delegate) -> None:
    """[trap 17] [A-07] The delegate is stopped and told to undo; code 11."""
    host.run("mkfifo", "/mnt/never")
    own.answer("ADD", "echo $$ > /mnt/seen/pid; read line < /mnt/never")
    container = host.container("c1")
    before = dump(host)
    process = start(host, container)
    wait_for(lambda: own.seen("pid") != "")
    process.send_signal(signal.SIGTERM)
    outcome = finish(process)
    error = refusal(outcome)
    assert (outcome.status, error["code"], error["msg"]) == (1, 11, "interrupted by SIGTERM")
    assert own.verbs == ["ADD", "DEL"]
    assert not Path(f"/proc/{own.seen('pid').strip()}").exists()
    assert differences(before, dump(host)) == ""


@pytest.fixture
def mixed(host: Host) -> str:
    """A folder with our bridge and the reference's IPAM plugins; returns the bridge's path."""
    host.run("mount", "-t", "tmpfs", "none", "/mnt")
    host.run("cp", str(BIN / "bridge"), "/mnt/bridge")
    host.run("cp", str(REFERENCE / "host-local"), str(REFERENCE / "static"), "/mnt")
    host.path = "/mnt"
    return "/mnt/bridge"


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0"])
def test_host_local_of_the_reference(host: Host, mixed: str, version: str) -> None:
    """[DG-01] [F-02] CNI_PATH decides whose host-local it is."""
    config = l3(cniVersion=version, isGateway=True, ipam=host_local(V4))
    first, second = host.container("c1"), host.container("c2")
    host.add(mixed, config, first)
    result = host.add(mixed, config, second)
    assert "10.1.2.3/24" in (result["ip4"]["ip"] if version == "0.2.0" else str(result["ips"]))
    assert host.allocated("net1") == {
        "10.1.2.2": "id-c1\r\neth0",
        "10.1.2.3": "id-c2\r\neth0",
    }
    assert host.run("ls", "-A", "/var/lib/cni/networks").stdout == "net1\n"
    assert second.reaches("10.1.2.2")
    if version in ("0.4.0", "1.0.0"):
        outcome = host.call(mixed, "CHECK", config | {"prevResult": result}, second)
        assert (outcome.status, outcome.stdout) == (0, ""), outcome
    host.delete(mixed, config, first)
    assert list(host.allocated("net1")) == ["10.1.2.3"]


def test_static_of_the_reference(host: Host, mixed: str) -> None:
    """[DG-01] [DG-02] CNI_ARGS reach the delegate."""
    args = "IgnoreUnknown=1;IP=10.1.2.8/24,fd00:1::8/64;GATEWAY=10.1.2.1"
    config = ipam("static", addresses=[]) | {"cniVersion": "1.0.0"}
    container = host.container("c1")
    result = host.add(mixed, config, container, env={"CNI_ARGS": args})
    assert result["ips"] == [
        {"interface": 2, "address": "10.1.2.8/24", "gateway": "10.1.2.1"},
        {"interface": 2, "address": "fd00:1::8/64"},
    ]
    assert container.addresses() == ["10.1.2.8/24", "fd00:1::8/64"]


@pytest.mark.parametrize("kind", ["host-local", "static"])
def test_errors_of_the_reference(host: Host, mixed: str, kind: str) -> None:
    """[DG-10] [A-07] A version that the delegate does not speak, and a range that is full."""
    container = host.container("c1")
    before = dump(host)
    error = refusal(host.call(mixed, "ADD", l3(ipam={"type": kind}), container))
    assert (error["code"], error["msg"]) == (1, "incompatible CNI versions")
    assert error["details"].startswith('config is "1.1.0", plugin supports ["0.1.0" ')
    assert differences(before, dump(host)) == ""
    full = host_local([{"subnet": "10.1.2.0/30", "rangeEnd": "10.1.2.1"}])
    bad = {"host-local": full, "static": {"type": "static", "addresses": [{"address": "1.2.3.4"}]}}
    error = refusal(host.call(mixed, "ADD", l3(cniVersion="1.0.0", ipam=bad[kind]), container))
    text = {"host-local": "no IP addresses available in range set", "static": "CIDR"}
    assert error["code"] == 999
    assert text[kind] in error["msg"]
    assert host.allocated("net1") == {}
    assert (host.ports(), host.link("cni0")) == ([], None)
