"""Instances as Consul's services, in its HTTP API's JSON; pure.

A service's `ID` and `Name` are the instance's, `Meta` is its metadata with what Consul has no key
for, and the tag `cni-py` finds the services that are ours. `Address` is the first address, for
Consul's own DNS; the others are in `TaggedAddresses`, which clients can ask for.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import msgspec

from .instance import Instance
from .registry import LeftOut, View

if TYPE_CHECKING:
    from collections.abc import Mapping

TAG = "cni-py"
_META = "cni-py-"
# The least that Consul takes.
_REMOVED_AFTER = "1m"
_MOST_REASON = 200


class _Weights(msgspec.Struct, frozen=True):
    passing: int = msgspec.field(name="Passing", default=1)


class _Service(msgspec.Struct, frozen=True):
    """What is of interest of a service."""

    id: str = msgspec.field(name="ID")
    name: str = msgspec.field(name="Service")
    port: int = msgspec.field(name="Port", default=0)
    meta: dict[str, str] | None = msgspec.field(name="Meta", default=None)
    weights: _Weights = msgspec.field(name="Weights", default=_Weights())
    created: int = msgspec.field(name="CreateIndex", default=0)


class _Entry(msgspec.Struct, frozen=True):
    """One of the answers of `/v1/health/service`."""

    service: _Service = msgspec.field(name="Service")


class _Name(msgspec.Struct, frozen=True):
    id: Any = msgspec.field(name="ID", default="")
    name: Any = msgspec.field(name="Service", default="")


class _Named(msgspec.Struct, frozen=True):
    """The same, as far as it is needed to name it."""

    service: _Name = msgspec.field(name="Service")


def registration(instance: Instance, ttl: int) -> dict[str, Any]:
    """What `/v1/agent/service/register` is told; the check is called `check_id`."""
    facts = {
        "node": instance.node,
        "network": instance.network,
        "protocol": instance.protocol,
        "addresses": ",".join(instance.addresses),
    }
    tagged = {f"lan_ipv{ip_address(one).version}": one for one in reversed(instance.addresses)}
    return {
        "ID": instance.id,
        "Name": instance.service,
        "Tags": [TAG],
        "Address": instance.addresses[0],
        "TaggedAddresses": {
            name: {"Address": address, "Port": instance.port} for name, address in tagged.items()
        },
        "Port": instance.port,
        "Meta": instance.metadata | {_META + key: value for key, value in facts.items()},
        "Weights": {"Passing": instance.weight, "Warning": 1},
        "Check": {
            "Name": f"cni-py agent of {instance.node}",
            "TTL": f"{ttl}s",
            "Status": "passing",
            "DeregisterCriticalServiceAfter": _REMOVED_AFTER,
        },
    }


def check_id(instance: str) -> str:
    """How Consul calls the one check that a service was registered with."""
    return f"service:{instance}"


def owner_of(body: bytes) -> tuple[str, str]:
    """Of an answer of `/v1/agent/service`: the service, and its node, or `""` if it is not ours."""
    try:
        found = msgspec.json.decode(body, type=_Service)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return "", ""
    return found.name, (found.meta or {}).get(_META + "node", "")


def index_in(headers: Mapping[str, str]) -> int:
    """What the next question may wait behind, 1 or more. Raises ValueError."""
    found = int(headers.get("x-consul-index", "0"))
    if found < 1:
        raise ValueError(f"X-Consul-Index is {found}")
    return found


def names_in(body: bytes) -> list[str]:
    """Of an answer of `/v1/catalog/services`: the services that are ours. Raises ValueError."""
    found = msgspec.json.decode(body, type=dict[str, list[str] | None])
    return sorted(name for name, tags in found.items() if TAG in (tags or ()))


def view_of(bodies: list[bytes]) -> View:
    """Of answers of `/v1/health/service`, one a service. Raises ValueError."""
    found: dict[tuple[str, str], tuple[int, Instance]] = {}
    left_out: list[LeftOut] = []
    for body in bodies:
        for raw in msgspec.json.decode(body, type=list[msgspec.Raw]):
            key = "/v1/health/service"
            try:
                named = msgspec.json.decode(raw, type=_Named).service
                key = ascii(f"{named.name}/{named.id}")[1:-1][:_MOST_REASON]
                service = msgspec.json.decode(raw, type=_Entry).service
                instance = _instance(service)
            except (msgspec.MsgspecError, RecursionError, ValueError) as error:
                left_out.append(LeftOut(key, ascii(str(error))[1:-1][:_MOST_REASON]))
                continue
            name = (instance.service, instance.id)
            # Each of Consul's nodes could have one; the oldest is believed.
            before = found.get(name)
            if before is not None:
                left_out.append(LeftOut(key, "another of Consul's nodes has it too"))
            if before is None or service.created < before[0]:
                found[name] = (service.created, instance)
    instances = tuple(found[name][1] for name in sorted(found))
    return View(instances, tuple(sorted(left_out, key=lambda one: (one.key, one.reason))))


def _instance(service: _Service) -> Instance:
    """Raises ValueError."""
    meta = service.meta or {}
    facts = {name: meta.get(_META + name, "") for name in ("node", "network", "protocol")}
    if not facts["node"]:
        raise ValueError("it has no cni-py-node: somebody else's service")
    given = {
        "service": service.name,
        "id": service.id,
        "addresses": tuple(meta.get(_META + "addresses", "").split(",")),
        "port": service.port,
        "weight": service.weights.passing,
        "metadata": {key: value for key, value in meta.items() if not key.startswith(_META)},
        **facts,
    }
    return msgspec.convert(given, Instance)
