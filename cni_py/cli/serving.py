"""`cni-py serve`, `metrics` and `dhcp-daemon`: what goes on running, and what it has counted."""

from __future__ import annotations

from pathlib import Path

import click

from cni_py.server.metrics import samples
from cni_py.server.settings import DEFAULT_METRICS_SOCKET, DEFAULT_SOCKET, Settings, fetch

from .group import Failed
from .output import json_option, print_json


@click.command()
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
@click.option(
    "--host-root",
    type=click.Path(path_type=Path),
    help="/proc/PID/root of a process of the host, for a server in a container: deferred DELs are "
    "carried out and rules restored there.",
)
@click.option(
    "--take-over",
    is_flag=True,
    help="Take the place of a server that listens there; it goes on with what it has begun.",
)
def serve(
    path: Path,
    metrics_socket: Path,
    workers: int,
    idle_workers: int,
    calls_per_worker: int,
    call_seconds: float,
    restore_rules: bool,  # noqa: FBT001 - click passes options by name
    host_root: Path | None,
    take_over: bool,  # noqa: FBT001
) -> None:
    """Serve the plugins' calls from processes that are forked ahead with everything loaded."""
    from cni_py.server.start import start

    settings = Settings(
        idle_workers=idle_workers,
        max_workers=workers,
        calls_per_worker=calls_per_worker,
        call_seconds=call_seconds,
        restore_rules=restore_rules,
        host_root=host_root,
        take_over=take_over,
    )
    try:
        start(path, metrics_socket, settings)
    except OSError as error:
        raise Failed(f"{error.strerror}: {error.filename or path}") from None


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def dhcp_daemon(flags: tuple[str, ...]) -> None:
    """Get and keep the leases of the plugin dhcp; the flags are those of `dhcp daemon`."""
    from cni_py.dhcp.command import main as daemon

    daemon(flags)


@click.command()
@click.option(
    "--metrics-socket",
    type=click.Path(path_type=Path),
    default=DEFAULT_METRICS_SOCKET,
    show_default=True,
    help="Where the server answers.",
)
@json_option
def metrics(metrics_socket: Path, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Print a running server's metrics in Prometheus' text format, or as JSON."""
    try:
        text = fetch(metrics_socket)
    except OSError as error:
        hint = "no server listens there: start one with `cni-py serve`"
        raise Failed(f"{metrics_socket}: {error.strerror}; {hint}") from None
    if as_json:
        print_json([one._asdict() for one in samples(text)])
    else:
        click.echo(text, nl=False)
