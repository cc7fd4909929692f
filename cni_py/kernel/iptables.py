"""iptables and ip6tables: rule lines in one `iptables-restore --noflush` a change.

There is no library for the xtables compatibility layer, so the executables are run: once for each
change, never once for each rule.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from cni_py.spec.errors import CniError, Code, code_of
from cni_py.spec.limits import MOST_LISTING_BYTES

from . import lock, processes

if TYPE_CHECKING:
    from collections.abc import Sequence

_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
_LOCK_SECONDS = 10
_RUN_SECONDS = 30
_LOCK = "/run/xtables.lock"
_LISTED = re.compile(r"-[PNA] [^ ]")
_PREFIX = {4: "iptables", 6: "ip6tables"}
_LEGACY = {4: "ip", 6: "ip6"}
# iptables(8): 4 is a resource problem, which is what a held lock is reported as.
_STATUS_LOCKED = 4
# The last is what iptables-nft says of a chain in a table that does not exist at all.
_NO_SUCH_CHAIN = ("No chain/target/match", "does not exist", "is incompatible, use 'nft' tool")


class IptablesError(CniError):
    """A change or query that iptables refused; `details` is what it said."""


def available(version: int) -> bool:
    """Whether the executables for IPv4 or IPv6 are installed."""
    return bool(_find(f"{_PREFIX[version]}-restore")) and bool(_find(_PREFIX[version]))


def restore(version: int, table: str, lines: Sequence[str], what: str) -> None:
    """Apply rule lines to one table as one transaction. Raises IptablesError."""
    text = "\n".join((f"*{table}", *lines, "COMMIT", ""))
    name = f"{_PREFIX[version]}-restore"
    _run([name, "--noflush", "--wait", str(_LOCK_SECONDS)], what, text)


def rules(version: int, table: str, chain: str) -> list[str] | None:
    """The chain's rules as `-A ...` lines; None if there is no such chain. Raises IptablesError."""
    arguments = [_PREFIX[version], "--wait", str(_LOCK_SECONDS), "-t", table, "-S", chain]
    try:
        output = _run(arguments, f"list the chain {chain}")
    except IptablesError as error:
        if any(text in error.details for text in _NO_SUCH_CHAIN):
            return None
        raise
    return [line for line in output.split("\n") if line.startswith("-A ")]


def listing(version: int, table: str) -> list[str]:
    """All chains (`-P`, `-N`) and rules (`-A`) of a table. Raises IptablesError.

    A line ends at a line feed alone: a comment may have what splitlines() takes for one too. The
    rest of a comment with a line feed in it is left out.
    """
    arguments = [_PREFIX[version], "--wait", str(_LOCK_SECONDS), "-t", table, "-S"]
    lines = _run(arguments, f"list the table {table}").split("\n")
    return [line for line in lines if _LISTED.match(line)]


def chains(version: int, table: str) -> dict[str, list[str]]:
    """The rules of every chain of a table, without the `-A CHAIN ` before each."""
    found: dict[str, list[str]] = {}
    for line in listing(version, table):
        verb, chain, *rest = line.split(" ", 2)
        listed = found.setdefault(chain, [])
        if verb == "-A":
            listed += rest
    return found


def forward_drops(version: int) -> bool:
    """Whether what is forwarded is dropped unless a rule accepts it. Raises IptablesError."""
    arguments = [_PREFIX[version], "--wait", str(_LOCK_SECONDS), "-S", "FORWARD"]
    return "-P FORWARD DROP" in _run(arguments, "list the chain FORWARD").split("\n")


def variant(version: int) -> str:
    """`nf_tables` or `legacy`: what the executables write to; `""` where they do not say."""
    said = _run([_PREFIX[version], "--version"], "ask for the version")
    return said.partition("(")[2].partition(")")[0]


def rules_of_variant(version: int, name: str) -> int | None:
    """How many rules the variant `nft` or `legacy` has; None where it is not installed.

    Raises IptablesError.
    """
    program = f"{_PREFIX[version]}-{name}-save"
    # Only asking would load legacy's modules, and make its empty tables.
    if _find(program) is None or (name == "legacy" and not legacy_tables(version)):
        return None
    lines = _run([program], f"list the rules of {program}").split("\n")
    return sum(one.startswith("-A ") for one in lines)


def legacy_tables(version: int) -> frozenset[str]:
    """The tables of the variant legacy that there are in the namespace of the thread."""
    try:
        with open(f"/proc/thread-self/net/{_LEGACY[version]}_tables_names") as file:
            return frozenset(file.read().split())
    except OSError:
        return frozenset()


def can_be_listed(version: int, table: str) -> bool:
    """Whether to list a table makes none, as it does of legacy. Raises IptablesError."""
    return available(version) and (
        variant(version) == "nf_tables" or table in legacy_tables(version)
    )


class Listable(NamedTuple):
    """The tables that there are: those that the executables show, and those of the other variant.

    `variant` is the executables', `none` where none are installed.
    """

    shown: frozenset[str]
    hidden: frozenset[str]
    variant: str


def listable(version: int, nft: frozenset[str]) -> Listable:
    """Which tables there are to be listed, of both variants.

    `nft` are nftables' tables of the family. Raises IptablesError.
    """
    legacy = legacy_tables(version)
    if not nft and not legacy:
        return Listable(frozenset(), frozenset(), "")
    if not available(version):
        return Listable(frozenset(), nft | legacy, "none")
    own = variant(version)
    return Listable(nft, legacy, own) if own == "nf_tables" else Listable(legacy, nft, own)


def quoted(text: str) -> str:
    """`text` as one argument of a rule line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _find(name: str) -> str | None:
    folders = [one for one in os.environ.get("PATH", "").split(":") if one.startswith("/")]
    for folder in (*folders, *_SYSTEM_FOLDERS):
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    return None


def _run(arguments: list[str], what: str, text: str = "") -> str:
    path = _find(arguments[0])
    if path is None:
        msg = f"{what}: {arguments[0]} is not installed"
        raise IptablesError(Code.INTERNAL, msg, "install the package iptables")
    try:
        done = processes.run(
            [path, *arguments[1:]],
            os.fsencode(text),
            seconds=_RUN_SECONDS,
            most=MOST_LISTING_BYTES,
        )
    except OSError as error:
        msg = f"{what}: {path}: {error.strerror}"
        raise IptablesError(code_of(error.errno or 0), msg) from error
    except subprocess.TimeoutExpired:
        msg = f"{what}: {arguments[0]} took more than {_RUN_SECONDS} s"
        raise IptablesError(Code.TRY_AGAIN_LATER, msg) from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        locked = done.returncode == _STATUS_LOCKED and "lock" in said
        if locked:
            said = f"{said}; {_LOCK} is {lock.holder_of(_LOCK)}"
        code = Code.TRY_AGAIN_LATER if locked else Code.INTERNAL
        raise IptablesError(code, f"{what}: {arguments[0]} failed", said)
    return os.fsdecode(done.stdout)
