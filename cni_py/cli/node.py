"""`cni-py node`: what the container of a DaemonSet does on its node."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click

from cni_py.installation import (
    Installation,
    InstallationError,
    Root,
    executables,
    plan_removal,
    writing,
)
from cni_py.installation import install as install_files
from cni_py.installation import uninstall as uninstall_files
from cni_py.installation.cluster import ACCOUNT, Cluster, needs_subnets, with_subnets
from cni_py.ipam.delegation import is_ours
from cni_py.server.settings import DEFAULT_METRICS_SOCKET, fetch
from cni_py.skel import EXECUTABLES

from .group import CommandGroup, Failed, Unreadable

_PAUSE_SECONDS = 2.0
_TELL_SECONDS = 30.0
_READY_PAUSE_SECONDS = 0.1

_bin = click.option(
    "--bin",
    "folder",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="The node's folder of executables, as it is mounted here.",
)
_net_dir = click.option(
    "--net-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="The node's /etc/cni/net.d, as it is mounted here.",
)
_socket = click.option(
    "--metrics-socket",
    type=click.Path(path_type=Path),
    default=DEFAULT_METRICS_SOCKET,
    show_default=True,
    help="Where this container's own server answers.",
)


@click.group(cls=CommandGroup)
def node() -> None:
    """What the container of a DaemonSet does on its node."""


@node.command()
@click.argument("template", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("filled", type=click.Path(dir_okay=False, path_type=Path))
@_bin
@click.option("--node", "name", envvar="NODE_NAME", help="The node's name; else $NODE_NAME.")
@click.option(
    "--account",
    type=click.Path(path_type=Path),
    default=ACCOUNT,
    show_default=True,
    help="The folder with the service account's token and ca.crt.",
)
def prepare(template: Path, filled: Path, folder: Path, name: str | None, account: Path) -> None:
    """Put the launchers onto the node, and fill TEMPLATE with its podCIDRs into FILLED.

    A host-local in TEMPLATE that has neither ranges nor subnet gets them; where there is none the
    API server is not asked. Waits until the node has a podCIDR.
    """
    network = _network(template)
    try:
        _install_launchers(folder)
        if needs_subnets(network):
            network = with_subnets(network, _subnets(name, account))
    except InstallationError as error:
        raise Failed(str(error)) from None
    _put(filled, network)


@node.command()
@click.argument("filled", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_net_dir
@_socket
@click.option("--seconds", default=60.0, show_default=True, help="How long to wait for the server.")
def publish(filled: Path, net_dir: Path, metrics_socket: Path, seconds: float) -> None:
    """Write the network FILLED for the node's runtime once the server takes calls."""
    network = _network(filled)
    deadline = time.monotonic() + seconds
    while problem := _not_ready(metrics_socket):
        if time.monotonic() > deadline:
            raise Failed(f"the server takes no calls after {seconds:g} s: {problem}")
        time.sleep(_READY_PAUSE_SECONDS)
    _put(net_dir / filled.name, network)


@node.command()
@_socket
@click.option("--ready", is_flag=True, help="Also whether it takes calls, and all is in place.")
@click.option("--bin", "folder", type=click.Path(path_type=Path), help="With --ready: where.")
@click.option("--network", type=click.Path(path_type=Path), help="With --ready: the .conflist.")
def probe(metrics_socket: Path, ready: bool, folder: Path | None, network: Path | None) -> None:  # noqa: FBT001
    """Whether the server answers; the exit status says it."""
    problem = _not_ready(metrics_socket, "/readyz" if ready else "/healthz")
    if not problem and ready and folder is not None:
        missing = [one for one in EXECUTABLES if not is_ours(os.fspath(folder / one))]
        problem = f"{folder} has no {', '.join(missing)} of cni-py" if missing else ""
    if not problem and ready and network is not None:
        _network(network)
    if problem:
        raise Failed(problem)


@node.command()
@click.argument("network")
@_bin
@_net_dir
def remove(network: str, folder: Path, net_dir: Path) -> None:
    """Take the file NETWORK and the launchers off the node, and put back what was there before."""
    if "/" in network:
        raise click.UsageError("NETWORK is the name of a file in --net-dir")
    (net_dir / network).unlink(missing_ok=True)
    asked = Installation(os.path.abspath(folder), Root(), ())
    try:
        uninstall_files(asked.place)
        left = [one.path for one in plan_removal(asked.place) if one.action == "left"]
    except InstallationError as error:
        raise Failed(str(error)) from None
    for path in left:
        click.echo(f"left {path}")


def _install_launchers(folder: Path) -> None:
    place = os.path.abspath(folder)
    files = executables(place, Root(), launcher_only=True)
    install_files(Installation(place, Root(), tuple(files)))


def _subnets(name: str | None, account: Path) -> list[str]:
    """The node's; waits for them. Raises InstallationError."""
    if not name:
        raise InstallationError("the node's name is not known: give --node or NODE_NAME")
    cluster = Cluster.of(os.environ, account)
    told = 0.0
    while True:
        try:
            found, why = cluster.pod_cidrs(name), f"node {name} has no podCIDR yet"
        except OSError as error:
            found, why = [], str(error.strerror or error)
        if found:
            return found
        if time.monotonic() - told > _TELL_SECONDS or not told:
            told = time.monotonic()
            click.echo(f"waiting: {why}", err=True)
        time.sleep(_PAUSE_SECONDS)


def _network(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
        needs_subnets(found)
    except (ValueError, InstallationError) as error:
        raise Unreadable(f"{path}: {error}") from None
    except FileNotFoundError:
        raise Failed(f"{path} is not there") from None
    return found  # type: ignore[no-any-return]


def _put(path: Path, network: object) -> None:
    content = (json.dumps(network, indent=2) + "\n").encode()
    if not path.exists() or path.read_bytes() != content:
        writing.put(os.fspath(path), content, 0o644)


def _not_ready(metrics_socket: Path, what: str = "/readyz") -> str:
    """Why not; `""` where the server says yes."""
    try:
        return "" if fetch(metrics_socket, what) else "the server says that it is not ready yet"
    except OSError as error:
        return f"{metrics_socket}: {error.strerror or error}"
