"""What somebody gives commands by mistake: one line says so, the status as documented."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixtures.cnitool import cni_py, configure
from fixtures.configs import host_local
from fixtures.server import CNI_PY

if TYPE_CHECKING:
    from fixtures.host import Host, Outcome

BRIDGE = {
    "type": "bridge",
    "ipam": host_local(),
    "capabilities": {"mac": True},
}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
_DEEP = "[" * 60_000
_NO_UTF8 = "n\udcff"
_OBEYED = "/run/\x1b]0;title\x07"

MISTAKES = (
    (2, ("plan", "net", "c1", "--cap", f"mac={_DEEP}"), "is no JSON: JSON is nested too deeply"),
    (2, ("plan", "net", "c1", "--cap", "mac=NaN"), "mac: NaN is no JSON"),
    (2, ("plan", "net", "c1", "--cap", 'mac="\\ud800"'), "is no JSON"),
    (2, ("add", "net", "c1", "--timeout", "inf"), "inf is not in the range"),
    (2, ("gc", "net", "--valid", "a/b", "--none-valid"), "--none-valid says that nothing does"),
    (2, ("add", "net", ""), "NETNS is empty"),
    (2, ("plan", "published", _NO_UTF8, "--port", "80:80"), "is not UTF-8"),
    (2, ("gc", "net", "--valid", "c1"), "c1 is no attachment"),
    (1, ("add", "net", _OBEYED), "no network namespace at /run/\\x1b]0;title\\x07: "),
    # Not given is one thing, an empty variable of a script another.
    (1, ("del", "net", "c1", "--container", ""), "missing containerID"),
)


def one_line(outcome: Outcome) -> str:
    assert outcome.stdout == "", outcome
    assert outcome.stderr.count("\n") == 1, outcome
    assert outcome.stderr.rstrip("\n").isprintable(), outcome
    return outcome.stderr


def test_arguments(host: Host) -> None:
    configure(host, "net", BRIDGE)
    configure(host, "published", BRIDGE, PORTMAP)
    host.container("c1")
    for status, arguments, text in MISTAKES:
        outcome = cni_py(host, *arguments, check=False)
        assert outcome.status == status, outcome
        assert text in one_line(outcome)


def test_plan_of_no_namespace(host: Host) -> None:
    configure(host, "net", BRIDGE)
    outcome = cni_py(host, "plan", "net", "/etc", check=False)
    assert outcome.status == 1
    assert "CONFLICT    there is no network namespace at /etc" in outcome.stdout


def test_standard_input(host: Host) -> None:
    """Endless, closed, or a list that nobody has written plugins into."""
    configure(host, "net", BRIDGE)
    empty = """echo '{"cniVersion": "1.0.0", "name": "net"}' |"""
    for before, behind, text in (
        ("", "</dev/zero", "has more than 16777216 bytes"),
        ("", "<&-", "is closed"),
        (empty, "", "network net has no plugins"),
    ):
        for command in ("status -", "plan - c1", "gc - --dry-run"):
            line = f"{before} {CNI_PY} {command} {behind}"
            outcome = host.run("sh", "-c", line, check=False)
            assert outcome.status == 2, outcome
            assert text in one_line(outcome)


def test_an_output_that_lacks_characters(host: Host) -> None:
    """What the encoding lacks is written out; what cannot be written at all is told."""
    configure(host, "net", BRIDGE)
    for command in ("plan", "graph"):
        arguments = ("net", "/run/\u2192") if command == "plan" else ()
        outcome = cni_py(host, command, *arguments, check=False, PYTHONIOENCODING="ascii")
        assert outcome.stderr == ""
    for arguments in ("--help", "schema /run/schemas"):
        full = host.run("sh", "-c", f"{CNI_PY} {arguments} >/dev/full", check=False)
        assert full.status == 1
        assert one_line(full).endswith(": No space left on device\n")


def test_a_reader_of_one_line(host: Host) -> None:
    """All schemas are written, whoever reads what of their names."""
    host.run("sh", "-c", f"{CNI_PY} schema /run/schemas | head -0")
    assert "vrf.json" in host.run("ls", "/run/schemas").stdout
