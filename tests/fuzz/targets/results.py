"""Results of every version: reading, writing each version, and reading that again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from cni_py.kernel import addresses, routes
from cni_py.spec import delegation, versions
from cni_py.spec.config import decode_json
from cni_py.spec.conversion import from_wire, require_family, to_wire
from cni_py.spec.errors import CniError
from fuzz.target import RESULT, require_reportable, require_told, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.results import Result

JSON = True


def seeds() -> Iterator[bytes]:
    whole = from_wire(RESULT, "1.1.0")
    for version in versions.ALL:
        yield f"{version}\n{json.dumps(to_wire(whole, version))}".encode()
    for code in (0, 7, 100, -1):
        yield f"error\n{json.dumps({'code': code, 'msg': 'm', 'details': 'd'})}".encode()
    yield b"1.1.0\nnull"
    yield b"0.2.0\n{}"


def run(data: bytes) -> None:
    words, document = split(data)
    fallback = words[0] if words else ""
    require_reportable(delegation.failure("exit status 1", document, data), data)
    try:
        _delegated(delegation.result(document, fallback))
    except CniError as error:
        require_reportable(error, data)
    try:
        raw = decode_json(document)
        if isinstance(raw, dict):
            require_family(raw, fallback)
        result = from_wire(raw, fallback)
    except ValueError as error:
        require_told(error)
        return
    for version in versions.ALL:
        _round_trip(result, version, data)


def _round_trip(result: Result, version: str, data: bytes) -> None:
    """What was written can be read, and written again it is the same."""
    try:
        wire = to_wire(result, version)
    except CniError as error:
        require_reportable(error, data)
        return
    try:
        written = msgspec.json.encode(wire)
    except UnicodeEncodeError:
        raise AssertionError("a result that cannot be written") from None
    again = from_wire(decode_json(written), "")
    assert wire["cniVersion"] == version
    assert to_wire(again, version) == wire
    if version == versions.NEWEST:
        _same(result, again)


def _same(result: Result, again: Result) -> None:
    """Nothing is lost but an index below zero."""
    assert (again.interfaces, again.routes, again.dns) == (
        result.interfaces,
        result.routes,
        result.dns,
    )
    for before, after in zip(result.ips, again.ips, strict=True):
        assert (after.address, after.gateway) == (before.address, before.gateway)


def _delegated(result: Result) -> None:
    """The requests that an interface plugin makes of its IPAM plugin's result."""
    for ip in result.ips:
        addresses.add(1, "eth0", ip.address)
    for route in result.routes:
        routes.add(1, "eth0", route, route.gw)
