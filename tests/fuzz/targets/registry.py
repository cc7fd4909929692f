"""What others write where services are: records in the store, and answers in Consul's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cni_py.cluster.store import Record
from cni_py.services.consul_records import names_in, owner_of, registration, view_of
from cni_py.services.instance import Instance
from cni_py.services.skydns import Gathered, Layout
from cni_py.services.skydns import owner_of as node_of
from fuzz.target import require_told, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.services.registry import View

JSON = True

LAYOUT = Layout()
OWN = Instance(
    service="web", id="c1-1", node="n1", network="n", addresses=("10.1.0.2", "fd00::2"), port=80
)


def seeds() -> Iterator[bytes]:
    for key, value in LAYOUT.records(OWN).items():
        yield f"skydns {key}\n".encode() + value
    yield b"skydns /skydns/internal/cluster/db/1/1\n" + b'{"host": "10.1.0.3", "port": 1}'
    told = registration(OWN, 15)
    service = told | {"Service": told["Name"], "CreateIndex": 7}
    yield b"consul\n" + msgspec.json.encode([{"Service": service}])
    yield b"names\n" + b'{"web": ["cni-py"], "consul": []}'
    yield b"owner\n" + msgspec.json.encode(service)


def run(data: bytes) -> None:
    words, content = split(data)
    match words:
        case ["skydns", key]:
            _records(key, content)
        case ["consul", *_]:
            try:
                _require_sound(view_of([content]))
            except ValueError as error:
                require_told(error)
        case ["names", *_]:
            try:
                assert all(isinstance(one, str) for one in names_in(content))
            except ValueError as error:
                require_told(error)
        case _:
            assert all(isinstance(one, str) for one in owner_of(content))
            assert isinstance(node_of(content), str)


def _records(key: str, content: bytes) -> None:
    """Whatever else there is, this node's own instance stays as it is."""
    own = LAYOUT.records(OWN)
    if key in own:
        return
    gathered = Gathered(LAYOUT)
    gathered.put(Record(key, content, 2, 2, 1))
    for name, value in own.items():
        gathered.put(Record(name, value, 1, 1, 1))
    view = gathered.view()
    _require_sound(view)
    # It is an instance, another address of one, or left out.
    assert view.left_out or view.instances != (OWN,)
    mine = [one.addresses for one in view.instances if one.id == OWN.id]
    assert set(OWN.addresses) <= {address for addresses in mine for address in addresses}
    gathered.remove(key)
    assert gathered.view().instances == (OWN,)


def _require_sound(view: View) -> None:
    for one in view.instances:
        # What is told can be registered.
        assert msgspec.convert(msgspec.to_builtins(one), Instance) == one
    for left_out in view.left_out:
        assert left_out.reason
        assert left_out.reason.isascii()
        assert left_out.reason.isprintable()
