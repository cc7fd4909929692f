"""The instances of a node: what its containers declare, where that answers; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from cni_py.spec.dns_names import dns_name

from .checking import Target
from .declaration import instance_of
from .instance import instance_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from .declaration import Declaration, Service
    from .instance import Instance


class Local:
    """What declarations come to on a node. Each address of a service is checked for itself."""

    def __init__(self, node: str, declarations: Iterable[Declaration]) -> None:
        self._declared: dict[str, tuple[Instance, Service]] = {}
        for one in declarations:
            network, container, ifname = one.attachment
            for service in one.services:
                name = instance_id(
                    node, container, ifname, service.name, service.port, service.protocol
                )
                instance = instance_of(
                    service, id=name, node=node, network=network, addresses=one.addresses
                )
                self._declared[name] = (instance, service)

    def __len__(self) -> int:
        """How many there are, whether they answer or not."""
        return len(self._declared)

    def targets(self) -> dict[str, Target]:
        """What is to be checked, by keys that are the same for the same container and service."""
        return {
            _key(instance, address): Target(address, service.port, service.check)
            for instance, service in self._declared.values()
            for address in instance.addresses
        }

    def healthy(self, keys: Collection[str]) -> dict[str, Instance]:
        """The instances that answer somewhere, by id, with the addresses where they do."""
        found = {}
        for name, (instance, _) in self._declared.items():
            answering = tuple(one for one in instance.addresses if _key(instance, one) in keys)
            if answering == instance.addresses:
                found[name] = instance
            elif answering:
                found[name] = replace(instance, addresses=answering)
        return found


def named(key: str) -> tuple[str, str]:
    """A key's instance and address, for a log."""
    name, _, address = key.partition("/")
    return name, address


def entries(instances: Iterable[Instance]) -> Mapping[str, list[tuple[str, list[str]]]]:
    """What `names.publish` takes, by network: addresses, each with the services there, sorted.

    What a registry takes and DNS does not, as `localhost`, is left out: it would stop all others.
    """
    found: dict[str, dict[str, set[str]]] = {}
    for one in instances:
        if not _is_name(one.service):
            continue
        for address in one.addresses:
            of_network = found.setdefault(one.network, {})
            of_network.setdefault(address, set()).add(one.service)
    return {
        network: [(address, sorted(services)) for address, services in sorted(listed.items())]
        for network, listed in found.items()
    }


def _is_name(service: str) -> bool:
    try:
        dns_name(service)
    except ValueError:
        return False
    return True


def _key(instance: Instance, address: str) -> str:
    return f"{instance.id}/{address}"
