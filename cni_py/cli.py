"""`cni-py`: the operator's command line."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from . import __version__
from .doctor import examine
from .install import install_executables
from .kernel.own_folders import limit_umask
from .server.settings import DEFAULT_METRICS_SOCKET, DEFAULT_SOCKET, Settings, fetch
from .skel import EXECUTABLES
from .spec.errors import CniError, cni_error_of
from .spec.schema import config_schema


@click.group()
@click.version_option(__version__, prog_name="cni-py")
def main() -> None:
    """Container networking for Linux: install and describe cni-py's CNI plugins."""
    limit_umask()


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def install(folder: Path) -> None:
    """Write one executable a plugin into FOLDER, such as /opt/cni/bin."""
    try:
        for path in install_executables(folder):
            click.echo(path)
    except (OSError, ValueError) as error:
        click.echo(f"cni-py install: {error}", err=True)
        sys.exit(1)


@main.command()
@click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path),
    default=DEFAULT_SOCKET,
    show_default=True,
    help="Where to listen for calls; ignored when systemd passes a socket.",
)
@click.option(
    "--metrics-socket",
    type=click.Path(path_type=Path),
    default=DEFAULT_METRICS_SOCKET,
    show_default=True,
    help="Where to answer with Prometheus' text.",
)
@click.option("--workers", default=Settings().max_workers, show_default=True)
@click.option("--idle-workers", default=Settings().idle_workers, show_default=True)
@click.option(
    "--calls-per-worker",
    default=Settings().calls_per_worker,
    show_default=True,
    help="1 gives every call a process of its own.",
)
@click.option("--call-seconds", default=Settings().call_seconds, show_default=True)
@click.option(
    "--restore-rules",
    is_flag=True,
    help="Make the rules of live containers again when somebody has flushed them.",
)
def serve(
    path: Path,
    metrics_socket: Path,
    workers: int,
    idle_workers: int,
    calls_per_worker: int,
    call_seconds: float,
    restore_rules: bool,  # noqa: FBT001 - click passes options by name
) -> None:
    """Serve the plugins' calls from processes that are forked ahead with everything loaded."""
    from .server.start import start

    settings = Settings(
        idle_workers=idle_workers,
        max_workers=workers,
        calls_per_worker=calls_per_worker,
        call_seconds=call_seconds,
        restore_rules=restore_rules,
    )
    try:
        start(path, metrics_socket, settings)
    except OSError as error:
        click.echo(f"cni-py serve: {error.strerror}: {error.filename or path}", err=True)
        sys.exit(1)


@main.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def dhcp_daemon(flags: tuple[str, ...]) -> None:
    """Get and keep the leases of the plugin dhcp; the flags are those of `dhcp daemon`."""
    from .dhcp.command import main as daemon

    daemon(flags)


@main.command()
@click.option("--metrics-socket", type=click.Path(path_type=Path), default=DEFAULT_METRICS_SOCKET)
def metrics(metrics_socket: Path) -> None:
    """Print a running server's metrics in Prometheus' text format."""
    try:
        click.echo(fetch(metrics_socket), nl=False)
    except OSError as error:
        click.echo(f"cni-py metrics: {error.strerror}: {metrics_socket}", err=True)
        sys.exit(1)


@main.command()
@click.argument(
    "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("/opt/cni/bin")
)
@click.option("--socket", "path", type=click.Path(path_type=Path), default=DEFAULT_SOCKET)
def doctor(folder: Path, path: Path) -> None:
    """Say what keeps the plugins in FOLDER from working, or from working well."""
    findings = list(examine(folder, path))
    for one in findings:
        click.echo(f"{'ok  ' if one.good else 'LOOK'} {one.text}")
        if one.advice:
            click.echo(f"     {one.advice}")
    sys.exit(0 if all(one.good for one in findings) else 1)


@main.command()
@click.argument("config", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Only list what would be taken away, and why.")
@click.option(
    "--valid",
    multiple=True,
    metavar="CONTAINER/INTERFACE",
    help="An attachment that lives, may be given again: of all others everything is taken away.",
)
@click.option("--none-valid", is_flag=True, help="No attachment lives: take away everything.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option(
    "--cni-path",
    default="/opt/cni/bin",
    show_default=True,
    help="Where the IPAM plugins' executables are.",
)
def gc(
    config: BinaryIO,
    dry_run: bool,  # noqa: FBT001 - click passes options by name
    valid: tuple[str, ...],
    none_valid: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    cni_path: str,
) -> None:
    """Take away what a network's containers have left behind.

    CONFIG is the network's .conflist or .conf, or - for standard input. Without --valid or
    --none-valid only what evidently outlived its container goes: its namespace is gone, or it is of
    an earlier boot.

    Before that the DELs are carried out, of whatever network, that launchers have written down
    while no server was there.
    """
    from .garbage import carry_out_deferred, collect, listed

    try:
        known = listed(valid) if valid or none_valid else None
        carried = [] if dry_run else list(carry_out_deferred())
        collected = collect(config.read(), known, dry=dry_run, path=cni_path)
    except (CniError, OSError) as error:
        click.echo(f"cni-py gc: {cni_error_of(error)}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(collected)))
    else:
        for one in collected:
            for line in one.lines(dry=dry_run):
                click.echo(line)
    failed = [f"deferred DEL of {one.container}: {one.error}" for one in carried if one.error]
    failed += [f"{one.type}: {one.error}" for one in collected if one.error]
    for text in failed:
        click.echo(f"cni-py gc: {text}", err=True)
    sys.exit(1 if failed else 0)


@main.group()
def firewall() -> None:
    """The rules that let containers through, isolate, masquerade and publish them."""


@firewall.command()
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def restore(as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Rebuild the rules of live containers after somebody has flushed them.

    For after `firewall-cmd --reload`, `nft flush ruleset` or `iptables-restore`. Rules that are
    there already stay.
    """
    from .plugins.restoring import restore as restore_all

    done = restore_all()
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(done)))
    else:
        click.echo(
            f"restored: {done.nftables} commands of nftables, {done.iptables} lines of iptables, "
            f"{done.firewalld} sources of firewalld"
        )
        for one in done.errors:
            click.echo(f"cni-py firewall restore: {one}", err=True)
    sys.exit(1 if done.errors else 0)


@main.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def schema(folder: Path) -> None:
    """Write the JSON Schema of every plugin's configuration into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, executable in EXECUTABLES.items():
        config = import_module(executable.module).Config
        path = folder / f"{name}.json"
        path.write_text(json.dumps(config_schema(name, config), indent=2) + "\n")
        click.echo(path)
