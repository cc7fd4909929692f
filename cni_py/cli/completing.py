"""What a shell completes: networks and containers. Nothing is raised and nothing printed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem


NET_DIR = "/etc/cni/net.d"


def network_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The networks of the folder that `--net-dir` or NETCONFPATH names, or a path begun."""
    from click.shell_completion import CompletionItem

    if param.param_type_name == "argument" and ("/" in incomplete or incomplete.startswith(".")):
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(one) for one in _networks(ctx) if one.startswith(incomplete)]


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Networks and containers."""
    return [*network_names(ctx, param, incomplete), *container_ids(ctx, param, incomplete)]


def container_ids(
    ctx: click.Context,  # noqa: ARG001 - click's signature
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    """The containers that libcni's cache of results knows; none for who may not read it."""
    from click.shell_completion import CompletionItem

    from cni_py.runtime.cache import Cache

    try:
        listed = Cache().listing().attachments
    except CniError:
        return []
    known = sorted({one.attachment.container_id for one in listed})
    return [CompletionItem(one) for one in known if one.startswith(incomplete)]


def _networks(ctx: click.Context) -> list[str]:
    from cni_py.runtime import load_folder

    given = ctx.params.get("net_dir") or os.environ.get("NETCONFPATH") or NET_DIR
    try:
        found = load_folder(given)
    except CniError:
        return []
    return list(dict.fromkeys(one.name for one in found.networks))
