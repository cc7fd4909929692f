"""firewall's firewalld backend: a container's addresses are sources of a zone (plugins.md 6.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.kernel import firewalld
from cni_py.kernel.firewalld import FirewalldError

from .interface import differs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .firewall_record import Record

# What firewalld says of an address that another zone has.
_OF_ANOTHER_ZONE = "ZONE_CONFLICT"


def set_up(record: Record) -> None:
    """Have the zone take the container's packets. Raises CniError."""
    with firewalld.require() as daemon:
        for one in record.addresses:
            source = _source(one)
            try:
                daemon.add_source(record.zone, source)
            except FirewalldError as error:
                if error.reason != _OF_ANOTHER_ZONE:
                    raise
                holder = daemon.zone_of_source(source)
                details = f"it is a source of the zone {holder}: {error.details}"
                raise FirewalldError(error.msg, details) from error


def forget(zone: str, addresses: Iterable[str]) -> None:
    """Take the addresses out of a zone. Raises CniError.

    A firewalld that does not run has forgotten them.
    """
    daemon = firewalld.running()
    if daemon is None:
        return
    with daemon:
        for one in addresses:
            daemon.remove_source(zone, _source(one))


def check(record: Record) -> None:
    """Whether the zone has all addresses. Raises CniError naming the first that it has not."""
    with firewalld.require() as daemon:
        for one in record.addresses:
            source = _source(one)
            if not daemon.has_source(record.zone, source):
                found = daemon.zone_of_source(source)
                raise differs(f"firewalld's zone of {source}", record.zone, found or "none")


def _source(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"
