"""`cni-py firewall`: the rules of live containers."""

from __future__ import annotations

import click

from .group import CommandGroup, Failed
from .output import json_option, need_root, print_json


@click.group(cls=CommandGroup)
def firewall() -> None:
    """The rules that let containers through, isolate, masquerade and publish them."""


@firewall.command()
@json_option
def restore(as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Rebuild the rules of live containers after somebody has flushed them.

    For after `firewall-cmd --reload`, `nft flush ruleset` or `iptables-restore`. Rules that are
    there already stay.
    """
    from cni_py.plugins.restoring import restore as restore_all

    need_root("restoring rules")
    done = restore_all()
    if as_json:
        print_json(done)
    else:
        click.echo(
            f"restored: {done.nftables} commands of nftables, {done.iptables} lines of iptables, "
            f"{done.firewalld} sources of firewalld"
        )
    if done.errors:
        raise Failed("; ".join(done.errors))
