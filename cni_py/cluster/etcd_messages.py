"""The contract's values as messages of etcd's API, and its answers back; pure.

The messages are aetcd's, generated from etcd's published protocol files: decision 42.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aetcd import rpc

from .key_range import key_bytes, range_end
from .store import Absent, AtRevision, AtVersion, Event, HasValue, Record, UnderLease

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .store import Condition, Put

_DELETED = 1


def below(prefix: str, **options: Any) -> Any:
    """The request for what is below a prefix, with RangeRequest's own options."""
    start = key_bytes(prefix)
    return rpc.RangeRequest(key=start or b"\0", range_end=range_end(start), **options)


def record(found: Any) -> Record:
    """A record from mvccpb.KeyValue."""
    return Record(
        found.key.decode("utf-8", "surrogateescape"),
        found.value,
        found.create_revision,
        found.mod_revision,
        found.version,
        found.lease,
    )


def event(found: Any) -> Event:
    """An event from mvccpb.Event."""
    one = record(found.kv)
    return Event(one.key, None if found.type == _DELETED else one, one.modified)


def transaction(
    conditions: Sequence[Condition], puts: Sequence[Put], deletes: Sequence[str]
) -> Any:
    """One transaction; where a condition fails, it reads the conditions' keys."""
    keys = dict.fromkeys(one.key for one in conditions)
    request = rpc.TxnRequest(
        compare=[compare for one in conditions for compare in _compares(one)],
        failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=key_bytes(key))) for key in keys],
    )
    for put in puts:
        change = rpc.PutRequest(key=key_bytes(put.key), value=put.value, lease=put.lease)
        request.success.append(rpc.RequestOp(request_put=change))
    for key in deletes:
        removal = rpc.DeleteRangeRequest(key=key_bytes(key))
        request.success.append(rpc.RequestOp(request_delete_range=removal))
    return request


def _compares(condition: Condition) -> list[Any]:
    key = key_bytes(condition.key)
    target = rpc.Compare.CompareTarget
    match condition:
        case Absent():
            return [rpc.Compare(key=key, target=target.VERSION, version=0)]
        case AtRevision(modified=modified):
            return [rpc.Compare(key=key, target=target.MOD, mod_revision=modified)]
        case AtVersion(version=version):
            return [rpc.Compare(key=key, target=target.VERSION, version=version)]
        case HasValue(value=value):
            return [rpc.Compare(key=key, target=target.VALUE, value=value)]
        case UnderLease(lease=lease):
            # To etcd, a key that is not there has the lease 0.
            there = rpc.Compare(
                key=key,
                target=target.VERSION,
                result=rpc.Compare.CompareResult.GREATER,
                version=0,
            )
            return [rpc.Compare(key=key, target=target.LEASE, lease=lease), there]
