"""`cni-py services`: who serves which name, as the registry has it."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
import msgspec

from cni_py.services.instance import Instance, require_service

from .agent_options import READABLE, in_loop
from .group import Failed, Unreadable
from .output import json_option, new_table, print_json, print_table, printable
from .registry_options import registry_opening, registry_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from cni_py.services.opening import Opening
    from cni_py.services.registry import Registry

T = TypeVar("T")

_service = click.argument("service", required=False, default="", metavar="[SERVICE]")


class _Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `watch --json`."""

    change: Literal["added", "changed", "removed", "lost", "found"]
    instance: Instance | None = None
    reason: str = ""


@click.group(invoke_without_command=True)
@registry_options
@click.pass_context
def services(ctx: click.Context, /, **given: Any) -> None:
    """Who serves which name: the healthy instances that the registry of services has.

    Options that say where the registry is come before a subcommand, and are the agent's. Without a
    subcommand all services are listed.
    """
    ctx.obj = given
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_services, service="", as_json=False)


@services.command("list")
@_service
@json_option
@click.pass_context
def list_services(ctx: click.Context, service: str, as_json: bool) -> None:  # noqa: FBT001
    """List the instances of a service, or of all; exit status 1 if SERVICE has none."""
    view = _in_registry(ctx, service, lambda registry: registry.list(service))
    if as_json:
        print_json({"instances": view.instances, "leftOut": view.left_out})
    elif view.instances:
        _print_instances(view.instances)
    elif not service:
        click.echo("cni-py services list: there is no healthy instance of any service", err=True)
    for one in view.left_out:
        said = printable(f"{one.key} is left out: {one.reason}")
        click.echo(f"cni-py services list: {said}", err=True)
    if service and not view.instances:
        raise Failed(f"service {service!r} has no healthy instance")


@services.command()
@_service
@json_option
@click.pass_context
def watch(ctx: click.Context, service: str, as_json: bool) -> None:  # noqa: FBT001
    """Tell the instances of a service, or of all, then each change, until it is interrupted."""
    _in_registry(ctx, service, lambda registry: _follow(registry, service, as_json=as_json))


async def _follow(registry: Registry, service: str, *, as_json: bool) -> None:
    known: dict[tuple[str, str], Instance] = {}
    lost = ""
    async with aclosing(registry.watch(service)) as views:
        async for view in views:
            if view.lost != lost:
                lost = view.lost
                _tell(_Change("lost" if lost else "found", reason=lost), as_json=as_json)
            found = {(one.service, one.id): one for one in view.instances}
            for one in _changes(known, found):
                _tell(one, as_json=as_json)
            known = found


def _changes(
    known: dict[tuple[str, str], Instance], found: dict[tuple[str, str], Instance]
) -> Iterator[_Change]:
    """What has come is told first: whoever follows always has somebody to ask."""
    for name, one in found.items():
        if name not in known:
            yield _Change("added", one)
        elif known[name] != one:
            yield _Change("changed", one)
    for name, one in known.items():
        if name not in found:
            yield _Change("removed", one)


def _tell(change: _Change, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(change))
    elif change.instance is None:
        said = f"the registry is out of reach: {change.reason}" if change.reason else (
            "the registry is there again")  # fmt: skip
        click.echo(printable(f"cni-py services watch: {said}"), err=True)
    else:
        one = change.instance
        row = (change.change, one.service, one.id, _ports(one), f"node {one.node}")
        click.echo(printable(" ".join(row)))


def _print_instances(instances: Iterable[Instance]) -> None:
    table = new_table("SERVICE", "INSTANCE", "WHERE", "WEIGHT", "NODE", "NETWORK", "METADATA")
    for one in instances:
        metadata = " ".join(f"{key}={value}" for key, value in sorted(one.metadata.items()))
        row = (
            one.service, one.id, _ports(one), str(one.weight), one.node, one.network, metadata
        )  # fmt: skip
        table.add_row(*map(printable, row))
    print_table(table)


def _ports(one: Instance) -> str:
    places = [f"[{address}]" if ":" in address else address for address in one.addresses]
    return " ".join(f"{place}:{one.port}/{one.protocol}" for place in places)


def _opened(ctx: click.Context, service: str) -> Opening:
    """The registry that the group's options tell of. Raises Unreadable, Failed."""
    if service:
        try:
            require_service(service)
        except ValueError as error:
            raise Unreadable(str(error)) from None
    given = ctx.obj
    found = registry_opening(given)
    if found.is_readable:
        warning = READABLE.format("Consul" if given["registry"] else "etcd")
        click.echo(f"cni-py services: {warning}", err=True)
    return found


def _in_registry(ctx: click.Context, service: str, work: Callable[[Registry], Awaitable[T]]) -> T:
    """What `work` of the registry comes to. Raises Unreadable, Failed."""
    opening = _opened(ctx, service)

    async def run() -> T:
        async with opening.open() as registry:
            return await work(registry)

    return in_loop(run())
