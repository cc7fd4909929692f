"""A registry by its name: `etcd:URL,URL`, `sqlite:PATH` or `consul:URL`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.cluster.store import DEADLINE

from .skydns import DOMAIN, PREFIX, Layout

if TYPE_CHECKING:
    from .registry import Registry

KINDS = "etcd:URL,URL, sqlite:PATH or consul:URL"


def open_registry(
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
) -> Registry:
    """The registry at a place; call it within the event loop that it is used in.

    `domain` and `prefix` say where in etcd's and SQLite's keys the services are; `ca`,
    `certificate` and `key` are paths of PEM files for etcd and Consul, `user` and `password`
    etcd's, `token` Consul's; `seconds` is what a call may take. Nobody is asked yet. Raises
    ValueError for what cannot be, ImportError where etcd's client is not installed.
    """
    kind, _, place = where.partition(":")
    layout = Layout(prefix, domain)
    if kind == "sqlite" and place:
        from cni_py.cluster.sqlite import Sqlite

        from .store_registry import StoreRegistry

        return StoreRegistry(Sqlite(place), layout, seconds=seconds)
    if kind == "etcd" and place:
        from cni_py.cluster.etcd import Etcd
        from cni_py.cluster.etcd_access import EtcdAccess

        from .store_registry import StoreRegistry

        endpoints = tuple(filter(None, (one.strip() for one in place.split(","))))
        access = EtcdAccess(endpoints, ca, certificate, key, user, password)
        return StoreRegistry(Etcd(access), layout, seconds=seconds)
    if kind == "consul" and place:
        from .consul import Consul
        from .consul_access import ConsulAccess

        return Consul(ConsulAccess(place, token, ca, certificate, key), seconds=seconds)
    raise ValueError(f"{where!a} is not {KINDS}")
