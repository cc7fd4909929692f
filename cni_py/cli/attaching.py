"""`cni-py add`, `check`, `del` and `status`: what cnitool does, and errors that say more."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from .attachment import Asked, attachment_options, name_of
from .completing import network_names
from .group import Failed
from .networks import cni_path_option, folders, named, net_dir_option
from .output import json_option, need_root, print_json

if TYPE_CHECKING:
    from cni_py.runtime import Cached, Network, Parameters, Runtime

_INDENT = 4


@click.command()
@attachment_options(netns_required=True)
@click.option(
    "--keep-failed",
    is_flag=True,
    help="Leave what a failed ADD has made, to look at: del takes it away.",
)
def add(asked: Asked, keep_failed: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Attach the container of a namespace to a network, and print the result.

    NETWORK is a network's name, or the path of a .conflist or .conf; NETNS the path of a network
    namespace, or a name of `ip netns`.
    """
    from .refusals import told

    need_root("attaching a container")
    network = asked.found()
    parameters = asked.parameters(network)
    _require_netns(parameters)
    runtime = asked.runtime()
    with told(network, as_json=asked.as_json, hint=_attached(runtime, network, parameters)) as stop:
        attached = runtime.add(network, parameters, undo=not keep_failed, cancel=stop)
    click.echo(json.dumps(attached.document, indent=_INDENT))


@click.command()
@attachment_options(netns_required=False)
def check(asked: Asked) -> None:
    """Have the plugins compare an attachment with what add has set.

    Prints nothing where everything is as it was. What is not given is as add had it.
    """
    from .refusals import told

    need_root("looking into a container")
    network = asked.found()
    runtime = asked.runtime()
    with told(network, as_json=asked.as_json) as stop:
        parameters = asked.recalled(_cached(runtime, network.name, asked, strict=True))
        _require_netns(parameters)
        runtime.check(network, parameters, cancel=stop)
    if network.disable_check:
        click.echo(f"{network.name} has disableCheck: nothing was compared", err=True)
    _done(asked, network, parameters)


@click.command("del")
@attachment_options(netns_required=False)
def delete(asked: Asked) -> None:
    """Detach a container from a network; again, or without anything attached, is no error.

    What is not given is as add had it, also the configuration of a network that is gone.
    """
    from .refusals import told

    need_root("detaching a container")
    runtime = asked.runtime()
    network = _network_or_cached(runtime, asked)
    with told(network, as_json=asked.as_json) as stop:
        parameters = asked.recalled(_cached(runtime, network.name, asked, strict=False))
        runtime.delete(network, parameters, cancel=stop)
    _done(asked, network, parameters)


@click.command()
@click.argument("network", shell_complete=network_names)
@click.argument("netns", required=False)
@net_dir_option
@cni_path_option
@json_option
def status(
    network: str,
    netns: str | None,  # noqa: ARG001 - cnitool takes one
    net_dir: str,
    cni_path: str,
    as_json: bool,  # noqa: FBT001 - click passes options by name
) -> None:
    """Ask a network's plugins whether they could attach a container now.

    NETNS is taken for cnitool's sake, and of no use.
    """
    from cni_py.runtime import Runtime

    from .refusals import told

    need_root("asking plugins")
    found = named(network, net_dir)
    runtime = Runtime(folders(cni_path), net_dir)
    with told(found, as_json=as_json) as stop:
        runtime.validate(found, cancel=stop)
        runtime.status(found, cancel=stop)
    types = [one.type for one in found.plugins]
    if as_json:
        print_json({"network": found.name, "version": found.version, "plugins": types})
    else:
        click.echo(f"{found.name} is ready: {', '.join(types)}")


def _require_netns(parameters: Parameters) -> None:
    """Raises Failed: no plugin could say more."""
    if os.path.exists(parameters.netns):
        return
    name = name_of(parameters.netns)
    advice = f"ip netns add {name}" if name else "NETNS is a path such as /run/netns/NAME"
    what = parameters.netns or "a path that is not known"
    raise Failed(f"there is no network namespace at {what}: {advice}")


def _attached(runtime: Runtime, network: Network, parameters: Parameters) -> str:
    """What to do where ADD fails for what is attached already."""
    from cni_py.spec.errors import CniError

    try:
        cached = runtime.cached(network.name, parameters.container_id, parameters.ifname)
    except CniError:
        return ""
    if cached is None:
        return ""
    return f"it is attached already: cni-py del {network.name} {parameters.netns}"


def _cached(runtime: Runtime, network: str, asked: Asked, *, strict: bool) -> Cached | None:
    """What the cache knows of the attachment; DEL does without what is damaged."""
    from cni_py.spec.errors import CniError

    own = asked.parameters()
    try:
        return runtime.cached(network, own.container_id, own.ifname)
    except CniError:
        if strict:
            raise
        return None


def _network_or_cached(runtime: Runtime, asked: Asked) -> Network:
    """The network, or what the cache has of one whose configuration is gone."""
    from cni_py.runtime import UnknownNetworkError

    try:
        return asked.found()
    except UnknownNetworkError:
        cached = _cached(runtime, asked.network, asked, strict=False)
        if cached is None:
            raise
        sys.stderr.write(f"cni-py del: {asked.network} has no configuration any more: as cached\n")
        return cached.configuration()


def _done(asked: Asked, network: Network, parameters: Parameters) -> None:
    if asked.as_json:
        print_json(
            {
                "network": network.name,
                "container": parameters.container_id,
                "netns": parameters.netns,
                "ifname": parameters.ifname,
            }
        )
