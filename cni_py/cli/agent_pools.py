"""`cni-py agent pool`: the pools of the plugin `cluster` in the store, for operators."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import click
import msgspec

from cni_py.cluster import pools

from .agent_options import in_store, name_of, place, print_record
from .group import Failed, Unreadable
from .output import json_option, new_table, print_json, print_table, printable

if TYPE_CHECKING:
    from cni_py.cluster.pools import Pool, PoolConfig
    from cni_py.cluster.store import Store


class NodesPart(msgspec.Struct, frozen=True, kw_only=True):
    """What a node has of a pool; `state` is alive, or missing: its lease has ended."""

    node: str
    state: str
    prefixes: tuple[str, ...]
    addresses: int


class Told(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A pool as the store has it. `free` are addresses that no node has, `wants` the nodes that
    have not got what they asked for, `refused` the records that make no sense.
    """

    pool: str
    config: pools.PoolConfig
    addresses: int
    free: int
    nodes: tuple[NodesPart, ...]
    wants: tuple[str, ...]
    refused: tuple[str, ...]


@click.group()
def pool() -> None:
    """Pools of the plugin cluster: addresses of a network that several nodes share."""


@pool.command("set")
@click.argument("name")
@click.argument("file", type=click.File("rb"))
@click.option("--force", is_flag=True, help="Also where nodes have blocks that it does not have.")
@click.pass_context
def set_pool(ctx: click.Context, name: str, file: Any, force: bool) -> None:  # noqa: FBT001
    """Put what FILE has (- for standard input) into the store as the pool NAME."""
    prefix, where = _prefix(name), place(ctx.obj)
    value = file.read()
    try:
        config = pools.parse_config(value)
    except pools.PoolError as error:
        raise Unreadable(f"{file.name}: {error}") from None
    lost = in_store(where, lambda store: _put(store, prefix, value, config, force))
    for one in lost:
        click.echo(f"cni-py agent pool set: {printable(one)}", err=True)
    if lost and not force:
        raise Failed("nothing was changed: --force changes it all the same, and containers of these"
                     " blocks have to be made anew")  # fmt: skip
    click.echo(f"{prefix}config is set: {_described(config)}")


@pool.command("get")
@click.argument("name")
@click.pass_context
def get_pool(ctx: click.Context, name: str) -> None:
    """Print the pool's configuration as it is in the store."""
    print_record(place(ctx.obj), f"{_prefix(name)}config")


@pool.command("show")
@click.argument("name")
@json_option
@click.pass_context
def show_pool(ctx: click.Context, name: str, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Tell which node has which part of the pool."""
    prefix = _prefix(name)
    snapshot = in_store(place(ctx.obj), lambda store: store.list(prefix))
    try:
        told = _told(name, pools.pool_of(snapshot.records, prefix))
    except pools.PoolError as error:
        raise Failed(f"pool {name}: {error}") from None
    if as_json:
        print_json(told)
        return
    click.echo(f"{printable(told.pool)}: {_described(told.config)}; "
               f"{told.free} of {told.addresses} addresses are no node's")  # fmt: skip
    table = new_table("NODE", "STATE", "ADDRESSES", "PREFIXES")
    for one in told.nodes:
        table.add_row(printable(one.node), one.state, str(one.addresses), " ".join(one.prefixes))
    if told.nodes:
        print_table(table)
    for line in (*(f"{one} waits for addresses" for one in told.wants), *told.refused):
        click.echo(printable(line), err=True)


async def _put(
    store: Store,
    prefix: str,
    value: bytes,
    config: PoolConfig,
    force: bool,  # noqa: FBT001
) -> list[str]:
    """Put it, unless nodes have blocks that would be none any more: these are told."""
    from cni_py.cluster.store import Absent, AtRevision, Put

    key = f"{prefix}config"
    while True:
        snapshot = await store.list(prefix)
        before = next((one for one in snapshot.records if one.key == key), None)
        # As if it were there already.
        others = [one for one in snapshot.records if one.key != key]
        blocks = [one.key for one in others if one.key.startswith(f"{prefix}blocks/")]
        lost = [f"{one} would be no block of the pool" for one in blocks if not _fits(one, config)]
        if lost and not force:
            return lost
        condition = Absent(key) if before is None else AtRevision(key, before.modified)
        if (await store.transact([condition], [Put(key, value)])).done:
            return lost


def _fits(key: str, config: PoolConfig) -> bool:
    address, _, length = key.rpartition("/")[2].rpartition("-")
    try:
        net = ip_network(f"{address}/{length}")
    except ValueError:
        # It is nobody's as it is.
        return True
    return net.prefixlen == config.length and pools.is_within(net, config.net)


def _told(name: str, found: Pool) -> Told:
    config = found.config
    parts: dict[str, list[Any]] = {one: [] for one in found.nodes}
    for node in sorted(found.owners() - {""}):
        parts[node] = [net for _, net in found.of(node)]
    whole = config.usable(config.net)[2]
    nodes = [
        NodesPart(
            node=node,
            state="alive" if node in found.nodes else "missing",
            prefixes=tuple(str(one) for one in nets),
            addresses=sum(config.usable(one)[2] for one in nets),
        )
        for node, nets in sorted(parts.items())
    ]
    return Told(
        pool=name,
        config=config,
        addresses=whole,
        free=whole - sum(one.addresses for one in nodes),
        nodes=tuple(nodes),
        wants=tuple(sorted(found.wants)),
        refused=found.refused,
    )


def _described(config: PoolConfig) -> str:
    return f"{config.network}, blocks of /{config.length}"


def _prefix(name: str) -> str:
    return f"{pools.PREFIX}/{name_of('NAME', name)}/"
