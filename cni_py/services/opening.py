"""A registry by its name: `etcd:URL,URL`, `sqlite:PATH` or `consul:URL`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.cluster.store import DEADLINE

from .skydns import DOMAIN, PREFIX, Layout
from .store_registry import StoreRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

    from .registry import Registry

KINDS = "etcd:URL,URL, sqlite:PATH or consul:URL"


class Opening(NamedTuple):
    """A registry that can be opened."""

    open: Callable[[], Registry]
    """Opens it; call it within the event loop that it is used in. Nobody is asked yet."""
    is_readable: bool = False
    """Whether others on the way can read and change what is said to it."""


def opening(
    where: str,
    *,
    domain: str = DOMAIN,
    prefix: str = PREFIX,
    ca: str = "",
    certificate: str = "",
    key: str = "",
    user: str = "",
    password: str = "",
    token: str = "",
    seconds: float = DEADLINE,
) -> Opening:
    """The registry at a place.

    `domain` and `prefix` say where in etcd's and SQLite's keys the services are; `ca`,
    `certificate` and `key` are paths of PEM files for etcd and Consul, `user` and `password`
    etcd's, `token` Consul's; `seconds` is what a call may take. Raises ValueError for what cannot
    be, ImportError where etcd's client is not installed.
    """
    kind, _, place = where.partition(":")
    layout = Layout(prefix, domain)
    if kind == "sqlite" and place:
        from cni_py.cluster.sqlite import Sqlite

        # Whoever looks makes no file: the agent does.
        return Opening(lambda: StoreRegistry(Sqlite(place, create=False), layout, seconds=seconds))
    if kind == "etcd" and place:
        from cni_py.cluster.etcd import Etcd
        from cni_py.cluster.etcd_access import EtcdAccess

        endpoints = tuple(filter(None, (one.strip() for one in place.split(","))))
        etcd = EtcdAccess(endpoints, ca, certificate, key, user, password)
        return Opening(lambda: StoreRegistry(Etcd(etcd), layout, seconds=seconds), etcd.is_readable)
    if kind == "consul" and place:
        from .consul import Consul
        from .consul_access import ConsulAccess

        consul = ConsulAccess(place, token, ca, certificate, key)
        return Opening(lambda: Consul(consul, seconds=seconds), consul.is_readable)
    raise ValueError(f"{where!a} is not {KINDS}")


def open_registry(where: str, **options: Any) -> Registry:
    """Open the registry at a place, within the event loop; `options` and errors: `opening`'s."""
    return opening(where, **options).open()
