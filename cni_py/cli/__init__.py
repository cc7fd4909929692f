"""`cni-py`: the operator's command line. A module a command, loaded when it is asked for."""

from __future__ import annotations

import click

from cni_py import __version__
from cni_py.kernel.own_folders import limit_umask

from .group import CommandLine

__all__ = ["main"]

# The module of each command, and the command in it.
COMMANDS = {
    "add": "attaching:add",
    "agent": "agent:agent",
    "check": "attaching:check",
    "completion": "completion:completion",
    "del": "attaching:delete",
    "demo": "demo:demo",
    "dhcp-daemon": "serving:dhcp_daemon",
    "doctor": "doctor:doctor",
    "firewall": "firewall:firewall",
    "gc": "gc:gc",
    "graph": "graph:graph",
    "install": "installing:install",
    "ipam": "ipam:ipam",
    "lint": "lint:lint",
    "metrics": "serving:metrics",
    "node": "node:node",
    "plan": "plan:plan",
    "schema": "schema:schema",
    "serve": "serving:serve",
    "services": "services:services",
    "show": "show:show",
    "status": "attaching:status",
    "trace": "trace:trace",
    "uninstall": "installing:uninstall",
}


@click.command("cni-py", cls=CommandLine, commands_in=COMMANDS)
@click.version_option(__version__, prog_name="cni-py")
def main() -> None:
    """Container networking for Linux: run, look into and keep in order what cni-py's plugins make.

    Exit status: 0 done, and nothing is wrong; 1 something is wrong or went wrong, and it says what;
    2 the command was not understood, or what it was given cannot be read; 130 interrupted.
    """
    limit_umask()
