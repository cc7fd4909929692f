"""An archive for a bug report: what this host looks like, without secrets.

Of other software's rules only the base chains are in it, not what they say: that is nobody's
business but the operator's, who can add it.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import tarfile
import time
from importlib import import_module, metadata
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py import __version__
from cni_py.ipam.listing import listing, networks
from cni_py.kernel import addresses, iptables, links, processes, routes, rules, ruleset, sysctl
from cni_py.kernel.errors import kernel_error
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.nft_table import BRIDGE, INET
from cni_py.server.settings import fetch
from cni_py.skel import EXECUTABLES
from cni_py.spec.errors import CniError
from cni_py.spec.schema import config_schema

from .redaction import Redaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cni_py.inventory.configurations import Configured

    from .examinations import Places
    from .finding import Finding

_LIBRARIES = ("click", "jeepney", "msgspec", "pip-nftables", "pyroute2", "rich")
_PARAMETERS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/disable_ipv6",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/ipv4/neigh/default/gc_thresh3",
    "fs/inotify/max_user_instances",
)
_JOURNAL = ("/usr/bin/journalctl", "/bin/journalctl")
_LOG_LINES, _LOG_SECONDS, _LOG_BYTES = 500, 10.0, 1 << 20
_ABOUT = """\
cni-py doctor --bundle: what this host looks like. Look through it before you send it to anybody.

In it: doctor's findings, versions, configurations, links, addresses, routes, policy rules, cni-py's
own nftables tables, the lines of iptables that name CNI chains, other software's base chains (not
their rules), kernel parameters, who holds which address, the server's metrics and last log lines.

Not in it: CNI_ARGS and `args`, values of keys that no plugin reads, other software's rules,
deferred DELs, results, and environments.
"""


def write(path: Path, places: Places, findings: Sequence[Finding]) -> None:
    """Write the archive, of mode 0600. Raises CniError where it is there already, OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        raise kernel_error(f"create {path}", error) from error
    try:
        with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in _contents(places, findings):
                data = text.encode(errors="replace")
                member = tarfile.TarInfo(f"cni-py-report/{name}")
                member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
                archive.addfile(member, io.BytesIO(data))
    except BaseException:
        os.unlink(path)
        raise


def _contents(places: Places, findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    redaction = Redaction(_known_keys())
    configurations = [
        (f"configurations/{os.path.basename(one.network.file)}", _redacted(one, redaction))
        for one in places.configured
    ]
    # First the configurations: what went from them is struck out of everything else.
    yield "README", _ABOUT
    for name, text in configurations:
        yield name, _shown(text, redaction)
    yield "doctor.json", _shown(findings, redaction)
    for name, make in _PARTS.items():
        try:
            part = make(places)
        except (CniError, OSError, TimeoutExpired) as error:
            part = f"could not be read: {error}\n"
        yield name, _shown(part, redaction)


def _shown(part: Any, redaction: Redaction) -> str:
    """A text as it is, anything else as JSON; both without secrets."""
    if isinstance(part, str):
        return redaction.text(part)
    plain = redaction.strings(msgspec.to_builtins(part, str_keys=True, enc_hook=str))
    # Names that are not UTF-8 are written out.
    return json.dumps(plain, indent=1) + "\n"


def _redacted(one: Configured, redaction: Redaction) -> dict[str, Any]:
    network = one.network
    whole = {"name": network.name, "cniVersion": network.cni_version, "plugins": list(one.plugins)}
    redacted: dict[str, Any] = redaction.configuration(whole)
    return redacted


def _known_keys() -> frozenset[str]:
    """Every key that some plugin of ours reads, in lower case."""
    found: set[str] = set()
    for name, executable in EXECUTABLES.items():
        schema = config_schema(name, import_module(executable.module).Config)
        for one in schema["$defs"].values():
            found |= {str(key).lower() for key in one.get("properties", ())}
    return frozenset(found)


def _versions(_places: Places) -> str:
    lines = [f"cni-py {__version__}", f"Python {sys.version}", f"Linux {platform.release()}"]
    lines.append(platform.machine())
    for one in _LIBRARIES:
        try:
            lines.append(f"{one} {metadata.version(one)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{one} is not installed")
    have = filter(iptables.available, (4, 6))
    lines += [f"iptables of IPv{version}: {iptables.variant(version)}" for version in have]
    return "\n".join(lines) + "\n"


def _links(_places: Places) -> Any:
    with Netlink() as host:
        found = links.dump(host)
    return [{**one._asdict(), "data": {}} for one in found]


def _addresses(_places: Places) -> Any:
    with Netlink() as host:
        found = addresses.dump_all(host)
    return {str(index): [one._asdict() for one in own] for index, own in found.items()}


def _routes(_places: Places) -> Any:
    with Netlink() as host:
        return [
            {**route._asdict(), "link": one.name}
            for one in links.dump(host)
            for route in routes.dump(host, one.ifindex)
        ]


def _rules(_places: Places) -> Any:
    with Netlink() as host:
        return [one._asdict() for one in rules.dump(host)]


def _tables(_places: Places) -> Any:
    own = {(one.family, one.name) for one in (INET, BRIDGE)}

    def is_ours(one: dict[str, Any]) -> bool:
        (kind, value), *_ = one.items()
        table = value.get("name") if kind == "table" else value.get("table")
        return (value.get("family"), table) in own

    return [one for one in ruleset.objects() if is_ours(one)]


def _chains(_places: Places) -> Any:
    return [one._asdict() for one in ruleset.base_chains()]


def _iptables(_places: Places) -> str:
    lines = []
    for version in (4, 6):
        for table in ("filter", "nat"):
            if iptables.can_be_listed(version, table):
                found = [one for one in iptables.listing(version, table) if "CNI-" in one]
                lines += [f"# IPv{version} {table}", *found]
    return "\n".join(lines) + "\n"


def _parameters(_places: Places) -> str:
    lines = []
    for key in _PARAMETERS:
        try:
            lines.append(f"{key} = {sysctl.read(key)}")
        except CniError as error:
            lines.append(f"{key}: {error.msg}")
    return "\n".join(lines) + "\n"


def _allocations(places: Places) -> Any:
    found = {one: listing(places.data_dir, one) for one in networks(places.data_dir)}
    return {
        network: {**one._asdict(), "allocations": [each._asdict() for each in one.allocations]}
        for network, one in found.items()
        if one is not None
    }


def _metrics(places: Places) -> str:
    return fetch(places.metrics_socket)


def _log(_places: Places) -> str:
    program = next((one for one in _JOURNAL if os.access(one, os.X_OK)), None)
    if program is None:
        return "there is no journalctl\n"
    arguments = [program, "-u", "cni-py.service", "-n", str(_LOG_LINES), "--no-pager", "-o", "cat"]
    done = processes.run(arguments, b"", seconds=_LOG_SECONDS, most=_LOG_BYTES)
    return done.stdout.decode(errors="replace")


_PARTS: dict[str, Callable[[Places], Any]] = {
    "versions.txt": _versions,
    "links.json": _links,
    "addresses.json": _addresses,
    "routes.json": _routes,
    "rules.json": _rules,
    "nft-cni_py.json": _tables,
    "nft-base-chains.json": _chains,
    "iptables-cni.txt": _iptables,
    "parameters.txt": _parameters,
    "allocations.json": _allocations,
    "metrics.txt": _metrics,
    "log.txt": _log,
}
