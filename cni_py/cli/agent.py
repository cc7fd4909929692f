"""`cni-py agent`: joins this node to the other nodes of a cluster."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cni_py.cluster import agent_socket, node_file
from cni_py.cluster.agent_report import AgentStatus
from cni_py.kernel.own_folders import require_own

from .agent_options import (
    agent_options,
    in_store,
    named,
    place,
    print_record,
    settings_of,
    store_options,
)
from .agent_pools import pool
from .group import Failed, Unreadable
from .keeping import keeping, keeping_options, with_a_store
from .output import json_option, need_root, new_table, print_json, print_table, printable

if TYPE_CHECKING:
    from cni_py.cluster.flannel_network import Network
    from cni_py.cluster.store import Store

    from .agent_options import Place

_network = click.option(
    "--network",
    "cluster",
    default=node_file.DEFAULT_CLUSTER,
    show_default=True,
    help="The network's name on this host.",
)
_socket = click.option("--socket", default="", help="Where the agent listens.")


@click.group(invoke_without_command=True)
@store_options
@agent_options
@keeping_options
@click.pass_context
def agent(ctx: click.Context, /, **given: Any) -> None:
    """Join this node to the others of a cluster: lease a subnet in etcd, and lead packets there.

    With --services it also keeps the services that containers declare.

    It runs until SIGTERM, which leaves the data path and the lease as they are, and logs a line of
    JSON an event on stderr. Its options come before a subcommand.
    """
    ctx.obj = given
    if ctx.invoked_subcommand is not None:
        return
    from cni_py.cluster.agent import Agent
    from cni_py.cluster.agent_log import log
    from cni_py.cluster.flannel import FlannelError
    from cni_py.cluster.flannel_network import parse_network

    need_root("joining this node to others")
    require_own()
    where = place(with_a_store(given))
    settings, others = settings_of(given, where.prefix), keeping(given)
    if settings.network:
        try:
            parse_network(settings.network)
        except FlannelError as error:
            raise Unreadable(f"{given['net_config_path']}: {error}") from None
    if where.warning:
        log("warning", text=where.warning)
    asyncio.run(Agent(settings, where.open, others).run())


@agent.command()
@_network
@_socket
@json_option
def status(cluster: str, socket: str, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Tell the node's lease, its peers, and whether all is well: exit status 0, else 1."""
    path = _socket_of(cluster, socket)
    found = msgspec.json.decode(_asked(path, "/status", cluster), type=AgentStatus)
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    sys.exit(0 if found.ready else 1)


@agent.command()
@_network
@_socket
def release(cluster: str, socket: str) -> None:
    """Have the agent give its lease back, take everything down, and end."""
    need_root("releasing the node's lease")
    _asked(_socket_of(cluster, socket), "/release", cluster, "POST")
    click.echo("the agent gives the lease back, takes everything down and ends")


@agent.command()
@_network
@_socket
def metrics(cluster: str, socket: str) -> None:
    """Print the agent's metrics in Prometheus' text format."""
    click.echo(_asked(_socket_of(cluster, socket), "/metrics", cluster), nl=False)


agent.add_command(pool)


@agent.group()
def config() -> None:
    """The network's configuration in the store, which all nodes follow."""


@config.command("get")
@click.pass_context
def get_config(ctx: click.Context) -> None:
    """Print it as it is in the store."""
    where = place(ctx.obj)
    print_record(where, _config_key(where))


@config.command("set")
@click.argument("file", type=click.File("rb"))
@click.option("--force", is_flag=True, help="Also where nodes have subnets that it does not have.")
@click.pass_context
def set_config(ctx: click.Context, file: Any, force: bool) -> None:  # noqa: FBT001
    """Put what FILE has (- for standard input) into the store, once it has been examined."""
    where = place(ctx.obj)
    value = file.read()
    network = _examined(value, file.name)
    left_out = in_store(where, lambda store: _put_config(store, where, value, network, force))
    for one in left_out:
        click.echo(f"cni-py agent config set: {printable(one)}", err=True)
    if left_out and not force:
        raise Failed("nothing was changed: --force changes it all the same, and these nodes get"
                     " other subnets")  # fmt: skip
    click.echo(f"{_config_key(where)} is set: {_described(network)}")


@config.command("check")
@click.argument("file", type=click.File("rb"))
def check_config(file: Any) -> None:
    """Examine what FILE has (- for standard input): exit status 2 if it cannot be used."""
    click.echo(_described(_examined(file.read(), file.name)))


def _examined(value: bytes, name: str) -> Network:
    from cni_py.cluster.agent_backend import require_usable
    from cni_py.cluster.flannel import FlannelError
    from cni_py.cluster.flannel_network import parse_network
    from cni_py.spec.errors import CniError

    try:
        network = parse_network(value)
        require_usable(network)
    except (FlannelError, CniError) as error:
        raise Unreadable(f"{name}: {error}") from None
    return network


async def _put_config(
    store: Store,
    where: Place,
    value: bytes,
    network: Network,
    force: bool,  # noqa: FBT001
) -> list[str]:
    """Put it, unless nodes would lose their subnets: these are told."""
    from cni_py.cluster.flannel import SUBNETS_KEY
    from cni_py.cluster.owner import lease_in
    from cni_py.cluster.store import Absent, AtRevision, Put

    key = _config_key(where)
    while True:
        before = await store.get(key)
        snapshot = await store.list(f"{where.prefix}/{SUBNETS_KEY}")
        found = [(one.key, lease_in(one, where.prefix)) for one in snapshot.records]
        left_out = [
            f"{name} is leased, and not one of the network's subnets any more"
            for name, lease in found
            if lease is not None and not network.offers(lease.subnets)
        ]
        if left_out and not force:
            return left_out
        condition = Absent(key) if before is None else AtRevision(key, before.modified)
        if (await store.transact([condition], [Put(key, value)])).done:
            return left_out


def _config_key(where: Place) -> str:
    from cni_py.cluster.flannel import CONFIG_KEY

    return f"{where.prefix}/{CONFIG_KEY}"


def _described(network: Network) -> str:
    pools = [
        f"{one.network}, {one.count} subnets of /{one.length}"
        for one in (network.v4, network.v6)
        if one is not None
    ]
    return f"{' and '.join(pools)}, by {network.backend_type}"


def _socket_of(cluster: str, socket: str) -> str:
    return socket or f"{node_file.FOLDER}/{named(cluster)}.sock"


def _asked(path: str, page: str, cluster: str, method: str = "GET") -> bytes:
    try:
        return agent_socket.ask(path, page, method)
    except OSError as error:
        hint = f"no agent of the network {cluster} listens there"
        raise Failed(f"{path}: {error.strerror or error}; {hint}") from None


def _print_status(found: AgentStatus) -> None:
    lease, store = found.lease, found.store
    held = f"{lease.holding}, for {lease.seconds_left:.0f} s for sure" if lease.number else "none"
    age = "never" if store.contact_age is None else f"{store.contact_age:.0f} s ago"
    rows = [
        ("state", "ready" if found.ready else f"not ready: {found.problem}"),
        ("node", f"{found.host} ({found.node})"),
        ("network", f"{found.networks}, by {found.backend}" if found.backend else ""),
        ("interface", found.interface),
        ("subnets", found.subnets),
        ("addresses", found.addresses),
        ("mtu", str(found.mtu or "")),
        ("lease", _and(held, lease.problem) if found.joins else "none is wanted"),
        ("store", _and(f"heard {age}", store.problem) if found.joins else ""),
        *found.companions.items(),
        ("former subnets", ", ".join(found.former)),
        ("lost by the store", ", ".join(found.missing)),
    ]
    for name, text in rows:
        if text:
            click.echo(f"{name:<18}{printable(text)}")
    if found.peers:
        click.echo()
        table = new_table("PEER", "ADDRESSES", "STATE")
        for one in found.peers:
            state = f"refused: {one.refused}" if one.refused else "reached"
            table.add_row(*map(printable, (one.subnets, one.addresses, state)))
        print_table(table)


def _and(text: str, problem: str) -> str:
    return f"{text}; {problem}" if problem else text
