"""The options of `cni-py agent` about services, and the keeper that they make."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cni_py.cluster import node_file
from cni_py.services.registry import DEFAULT_TTL
from cni_py.services.skydns import Layout

from .agent_options import own_option, with_options
from .group import Unreadable
from .registry_options import REGISTRY, registry_opening

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from cni_py.cluster.companion import Companion
    from cni_py.cluster.store import Store
    from cni_py.services.registry import Registry

    Opened = Callable[[Store], AbstractAsyncContextManager[Registry]]

_KEEPING = (
    own_option(
        "--services",
        is_flag=True,
        help="Keep the services that containers of this host declare: check, register, name them.",
    ),
    own_option(
        "--services-ttl",
        type=click.IntRange(2, 3600),
        default=DEFAULT_TTL,
        show_default=True,
        help="Seconds after which this node's services go if it is not heard of.",
    ),
    own_option(
        "--no-subnet",
        is_flag=True,
        help="Lease no subnet and lead no packets: keep services alone.",
    ),
)


def keeping_options(command: Callable[..., None]) -> Callable[..., None]:
    """Whether services are kept, and where they are registered."""
    return with_options((*_KEEPING, *REGISTRY), command)


def keeping(given: dict[str, Any]) -> list[Callable[[Store, str], Companion]]:
    """What else the agent is to do. Raises Unreadable, Failed, OSError."""
    if not given["services"]:
        if given["no_subnet"]:
            raise Unreadable("--no-subnet leaves nothing to do: --services keeps services")
        return []
    opened = _in_consul(given) if given["registry"] else _in_store(given)

    def keeper(store: Store, node: str) -> Companion:
        from cni_py.services.keeper import Keeper

        return Keeper(partial(opened, store), node, given["services_ttl"])

    return [keeper]


def with_a_store(given: dict[str, Any]) -> dict[str, Any]:
    """The options, with a file for a store where nobody is going to ask one: it is never made."""
    if given["no_subnet"] and given["registry"]:
        return given | {"store": f"sqlite:{node_file.FOLDER}/none.db"}
    return given


def _in_consul(given: dict[str, Any]) -> Opened:
    opening = registry_opening(given)
    return lambda _: opening.open()


def _in_store(given: dict[str, Any]) -> Opened:
    try:
        layout = Layout(given["services_path"], given["services_domain"])
    except ValueError as error:
        raise Unreadable(f"--services-path, --services-domain: {error}") from None

    def opened(store: Store) -> AbstractAsyncContextManager[Registry]:
        from cni_py.services.store_registry import StoreRegistry

        # The store is the agent's, who closes it.
        return nullcontext(StoreRegistry(store, layout))

    return opened
