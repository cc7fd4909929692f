"""The options of `cni-py agent`, named as flannel's; each can come from the environment too."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from cni_py.cluster import node_file
from cni_py.cluster.agent_settings import DEFAULT_TTL, IDENTITY_FOLDER, AgentSettings, Interfaces
from cni_py.cluster.flannel import PREFIX
from cni_py.cluster.reconciler import Pace
from cni_py.cluster.store_errors import StoreError
from cni_py.installation.cluster import ACCOUNT

from .group import Failed, Unreadable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from cni_py.cluster.store import Store

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
# flannel's file of the network's configuration is small; what is larger is another file.
_MOST_BYTES = 1 << 20


class _Address(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has none
    """An IP address of one family."""

    def __init__(self, kind: type[IPv4Address] | type[IPv6Address]) -> None:
        self._kind = kind
        self.name = "ipv4" if kind is IPv4Address else "ipv6"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._kind(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Pattern(click.ParamType):  # type: ignore[type-arg]
    """A regular expression."""

    name = "regex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            re.compile(value)
        except re.error as error:
            self.fail(f"{value!r} is no regular expression: {error}", param, ctx)
        return value


class _Path(click.ParamType):  # type: ignore[type-arg]
    """A path, absolute from now on; `""` stays."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        del param, ctx
        return os.path.abspath(value) if value else ""


def _flannel(name: str, **more: Any) -> Callable[[Any], Any]:
    """An option that flannel has, with flannel's variable."""
    return click.option(
        f"--{name}", envvar=f"FLANNELD_{name.replace('-', '_').upper()}", show_envvar=True, **more
    )


def own_option(*names: str, **more: Any) -> Callable[[Any], Any]:
    """An option that flannel has not."""
    first = names[0].removeprefix("--").partition("/")[0].replace("-", "_").upper()
    return click.option(*names, envvar=f"CNI_PY_AGENT_{first}", show_envvar=True, **more)


PATH = _Path()

ETCD = (
    _flannel(
        "etcd-endpoints",
        default="http://127.0.0.1:2379",
        show_default=True,
        help="A URL for each member of the etcd, with commas between them.",
    ),
    _flannel("etcd-cafile", type=PATH, default="", help="Who signed the members' certificates."),
    _flannel("etcd-certfile", type=PATH, default="", help="The certificate to show."),
    _flannel("etcd-keyfile", type=PATH, default="", help="Its key."),
    _flannel("etcd-username", default="", help="As whom to log in."),
    own_option("--etcd-password-file", type=PATH, default="", help="The file with the password."),
)

STORE = (
    ETCD[0],
    _flannel("etcd-prefix", default=PREFIX, show_default=True, help="Where the keys are."),
    *ETCD[1:],
    own_option(
        "--store",
        default="",
        help="sqlite:PATH has a file instead of an etcd, for agents on one machine.",
    ),
)

AGENT = (
    own_option(
        "--network",
        "cluster",
        default=node_file.DEFAULT_CLUSTER,
        show_default=True,
        help="The network's name on this host: its files are called so.",
    ),
    _flannel(
        "iface",
        multiple=True,
        help="The interface to other nodes: its name, address or network; repeat it for a second"
        " choice. Without one, that of the default route.",
    ),
    _flannel("iface-regex", type=_Pattern(), default="", help="The same, by name or address."),
    _flannel(
        "iface-can-reach", default="", metavar="ADDRESS", help="The one towards this address."
    ),
    _flannel(
        "public-ip",
        type=_Address(IPv4Address),
        help="At which address other nodes reach this one, where it is not the interface's.",
    ),
    _flannel("public-ipv6", type=_Address(IPv6Address), help="The same for IPv6."),
    own_option(
        "--subnet",
        "subnets",
        multiple=True,
        metavar="SUBNET",
        help="The subnet that this node has to have; one a family. Without it, one is chosen.",
    ),
    own_option(
        "--subnet-from",
        type=click.Choice(["store", "pod-cidr"]),
        default="store",
        show_default=True,
        help="Who gives the node its subnet: the store's network, or Kubernetes as its podCIDRs.",
    ),
    click.option(
        "--node", envvar="NODE_NAME", show_envvar=True, default="", help="The node's name there."
    ),
    own_option(
        "--account",
        type=PATH,
        default=ACCOUNT,
        show_default=True,
        help="The folder with the service account's token and ca.crt.",
    ),
    own_option(
        "--pool",
        "pools",
        multiple=True,
        metavar="NAME",
        help="Keep this node's part of a pool of the plugin cluster.",
    ),
    _flannel(
        "net-config-path",
        type=PATH,
        default="",
        help="A file with the network's configuration, which is then not looked for in the store.",
    ),
    own_option("--lease-file", type=PATH, default="", help="What the plugins read."),
    _flannel("subnet-file", type=PATH, default="", help="Write flannel's subnet.env there too."),
    own_option(
        "--identity-file",
        type=PATH,
        default="",
        help="Where the node's identity is kept.",
    ),
    own_option(
        "--lease-ttl",
        type=click.IntRange(2, 10 * 365 * 86400),
        default=DEFAULT_TTL,
        show_default=True,
        help="Seconds after which others may have the subnet if this node is not heard of.",
    ),
    own_option(
        "--reconcile-seconds",
        type=click.FloatRange(1),
        default=Pace().every,
        show_default=True,
        help="How often everything is compared with the kernel without a reason.",
    ),
    own_option(
        "--grace-seconds",
        type=click.FloatRange(0),
        default=60.0,
        show_default=True,
        help="For how long nodes are kept that a store has lost that came back from a backup.",
    ),
    own_option("--socket", type=PATH, default="", help="Where `cni-py agent status` asks."),
    _flannel("healthz-ip", default="127.0.0.1", show_default=True, help="With --healthz-port."),
    _flannel(
        "healthz-port",
        type=click.IntRange(0, 65535),
        default=0,
        help="Tell readiness and metrics there too: /readyz, /healthz, /metrics.",
    ),
    own_option(
        "--release",
        is_flag=True,
        help="At the end, give the lease back and take everything down.",
    ),
)


def store_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where the store is."""
    return with_options(STORE, command)


def agent_options(command: Callable[..., None]) -> Callable[..., None]:
    """What the agent does."""
    return with_options(AGENT, command)


def with_options(
    options: tuple[Callable[[Any], Any], ...], command: Callable[..., None]
) -> Callable[..., None]:
    """The command with all of these, in this order."""
    for one in reversed(options):
        command = one(command)
    return command


READABLE = "others on the way can read and change what is said to {}: use https"


def no_client(error: ImportError) -> Failed:
    """The refusal where etcd's client is missing."""
    hint = "pip install 'cni-py[etcd]'"
    return Failed(f"the client of etcd is not installed ({error.name}): {hint}")


class Place(NamedTuple):
    """Where the cluster's keys are."""

    open: Callable[[], Store]
    """Opens the store, in an event loop. Raises StoreError, OSError."""
    prefix: str
    warning: str = ""


def place(given: dict[str, Any]) -> Place:
    """The store that the options tell of. Raises Unreadable, Failed."""
    prefix = given["etcd_prefix"].rstrip("/")
    if not prefix.startswith("/"):
        raise Unreadable(f"--etcd-prefix {given['etcd_prefix']!r} does not begin with /")
    if given["store"]:
        kind, _, path = given["store"].partition(":")
        if kind != "sqlite" or not path:
            raise Unreadable(f"--store {given['store']!r} is not sqlite:PATH")

        def open_file() -> Store:
            from cni_py.cluster.sqlite import Sqlite

            return Sqlite(path)

        return Place(open_file, prefix)
    try:
        from cni_py.cluster.etcd import Etcd
        from cni_py.cluster.etcd_access import EtcdAccess
    except ImportError as error:
        raise no_client(error) from None
    try:
        access = EtcdAccess(
            tuple(filter(None, (one.strip() for one in given["etcd_endpoints"].split(",")))),
            given["etcd_cafile"],
            given["etcd_certfile"],
            given["etcd_keyfile"],
            given["etcd_username"],
            secret_in(given["etcd_password_file"]),
        )
    except ValueError as error:
        raise Unreadable(str(error)) from None
    warning = READABLE.format("etcd") if access.is_readable else ""
    return Place(lambda: Etcd(access), prefix, warning)


def in_loop(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that asks a store or a registry comes to. Raises Failed."""
    try:
        return asyncio.run(work)
    except StoreError as error:
        raise Failed(str(error)) from None


def in_store(where: Place, work: Callable[[Store], Awaitable[T]]) -> T:
    """What `work` of the store comes to. Raises Failed."""

    async def run() -> T:
        async with where.open() as store:
            return await work(store)

    return in_loop(run())


def print_record(where: Place, key: str) -> None:
    """Print a key's value as it is in the store. Raises Failed where there is none."""
    record = in_store(where, lambda store: store.get(key))
    if record is None:
        raise Failed(f"the store has no {key}")
    sys.stdout.buffer.write(record.value.rstrip(b"\n") + b"\n")


def secret_in(path: str) -> str:
    """A password's or token's file, without the end of its line; `""` for `""`. Raises OSError."""
    if not path:
        return ""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(_MOST_BYTES).rstrip("\r\n")


def settings_of(given: dict[str, Any], prefix: str) -> AgentSettings:
    """What the options tell the agent. Raises Unreadable, OSError."""
    cluster = named(given["cluster"])
    network = b""
    if given["net_config_path"]:
        with open(given["net_config_path"], "rb") as file:
            network = file.read(_MOST_BYTES)
    health = (given["healthz_ip"], given["healthz_port"]) if given["healthz_port"] else None
    return AgentSettings(
        cluster=cluster,
        prefix=prefix,
        file=given["lease_file"] or node_file.path_of(cluster),
        subnet_file=given["subnet_file"],
        identity_file=given["identity_file"] or f"{IDENTITY_FOLDER}/{cluster}.node",
        socket=given["socket"] or f"{node_file.FOLDER}/{cluster}.sock",
        health_address=health,
        ttl=given["lease_ttl"],
        interfaces=Interfaces(
            tuple(given["iface"]),
            given["iface_regex"],
            given["iface_can_reach"],
            given["public_ip"],
            given["public_ipv6"],
        ),
        subnets=tuple(part for one in given["subnets"] for part in one.split(",") if part),
        assigned=_assigned(given),
        pools=tuple(dict.fromkeys(name_of("--pool", one) for one in given["pools"])),
        network=network,
        grace=given["grace_seconds"],
        pace=Pace(every=given["reconcile_seconds"]),
        joins=not given["no_subnet"],
        release=given["release"],
    )


def _assigned(given: dict[str, Any]) -> Callable[[], tuple[str, ...]] | None:
    """What asks Kubernetes for the node's podCIDRs, if it is to. Raises Unreadable, Failed."""
    if given["subnet_from"] != "pod-cidr":
        return None
    from cni_py.cluster.claiming import NotToldError
    from cni_py.installation import InstallationError
    from cni_py.installation.cluster import Cluster

    if given["subnets"]:
        raise Unreadable("--subnet and --subnet-from pod-cidr are given: one of them says it")
    name = given["node"]
    if not name:
        raise Unreadable("--subnet-from pod-cidr needs the node's name: give --node or NODE_NAME")
    try:
        api = Cluster.of(os.environ, Path(given["account"]))
    except InstallationError as error:
        raise Failed(str(error)) from None

    def ask() -> tuple[str, ...]:
        try:
            found = tuple(api.pod_cidrs(name))
        except InstallationError as error:
            raise NotToldError(str(error)) from None
        except OSError as error:
            raise NotToldError(f"the API server: {error.strerror or error}") from None
        if not found:
            raise NotToldError(f"node {name} has no podCIDR yet")
        return found

    return ask


def named(cluster: str) -> str:
    """A network's name, which can be part of a file's. Raises Unreadable."""
    return name_of("--network", cluster)


def name_of(option: str, given: str) -> str:
    """A name that can be part of a key's or a file's. Raises Unreadable."""
    if not _NAME.fullmatch(given):
        raise Unreadable(f"{option} {given!r}: letters, digits and _.- alone, at most 100")
    return given
