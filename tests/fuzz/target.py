"""What the targets share: seeds with a first line, JSON that is changed as JSON, and what holds.

A target is a module in `targets` with `run(data)`, which raises for a defect alone, and `seeds()`.
An input begins with a line that says what it is for (`bridge ADD`), so that it can be read and
written by hand.
"""

from __future__ import annotations

import json
import random
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol

from cni_py.spec.errors import CniError

from . import targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parent.parent.parent
CONFIGURATIONS = ROOT / "conf"
FINDINGS = Path(__file__).parent / "findings"

_LARGEST_ERROR_BYTES = 4096
# One character is up to twelve in JSON, and a message can have the value in both fields.
_ERROR_GROWTH = 32
_WORDS_AT_MOST = 64

Mutate = Callable[[bytes, int], bytes] if TYPE_CHECKING else object


class Target(Protocol):
    """A module of `targets`."""

    def run(self, data: bytes) -> None:
        """Feed the code with an input. Raises for a defect."""

    def seeds(self) -> Iterable[bytes]:
        """Inputs to begin with."""


def names() -> list[str]:
    """The targets."""
    return sorted(module.name for module in iter_modules(targets.__path__))


def load(name: str) -> Target:
    """The target's module."""
    return import_module(f"{targets.__name__}.{name}")  # type: ignore[return-value]


def all_seeds(name: str) -> list[bytes]:
    """The target's seeds, and what has been found before."""
    found = sorted((FINDINGS / name).glob("*"))
    return [*load(name).seeds(), *(path.read_bytes() for path in found)]


def split(data: bytes) -> tuple[list[str], bytes]:
    """The words of the first line, and the rest."""
    head, _, rest = data.partition(b"\n")
    return head.decode(errors="replace").split(), rest


def require_told(error: ValueError) -> None:
    """What a ValueError says goes into the message of a CniError."""
    assert str(error), repr(error)


def require_reportable(error: CniError, data: bytes) -> None:
    """The error has the shape that the protocol asks for, and is not much longer than the input."""
    assert type(error.code) is int, error.code
    assert error.code >= 0, error.code
    assert isinstance(error.msg, str), error.msg
    assert error.msg, "an error without a message"
    assert isinstance(error.details, str), error.details
    text = json.dumps({"code": error.code, "msg": error.msg, "details": error.details})
    assert len(text) <= _LARGEST_ERROR_BYTES + _ERROR_GROWTH * len(data), len(text)


# Seeds.


@cache
def configurations() -> list[dict[str, Any]]:
    """Every plugin's configuration in conf/."""
    found = []
    for path in sorted(CONFIGURATIONS.glob("*.conflist")):
        whole = json.loads(path.read_text())
        common = {"cniVersion": whole["cniVersion"], "name": whole["name"]}
        found += [{**common, **one} for one in whole["plugins"]]
    return found


def schema_keys() -> set[str]:
    """Every key of every plugin's configuration."""
    found: set[str] = set()
    for path in sorted((CONFIGURATIONS / "schema").glob("*.json")):
        found |= set(_properties(json.loads(path.read_text())))
    return found


def _properties(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for one in schema:
            yield from _properties(one)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield from schema["properties"]
        for one in schema.values():
            yield from _properties(one)


RESULT = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "cni0", "mac": "02:00:00:00:00:01", "mtu": 1500},
        {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/c1"},
    ],
    "ips": [
        {"interface": 1, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"interface": 1, "address": "fd00::2/64", "gateway": "fd00::1"},
    ],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "advmss": 1360, "priority": 5},
        {"dst": "::/0", "table": 100, "scope": 0},
    ],
    "dns": {"nameservers": ["10.1.0.1"], "domain": "a.b", "search": ["a"], "options": ["x:1"]},
}

# Changing JSON as JSON.

_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 13, 255, 256, 4094, 65535, 65536, 2**31, 2**32 - 1, 2**32),
    *(2**63, 2**64 - 1, 2**64, 10**40, -(2**31), -(2**63), 0.5, 1e308, -0.0),
    *("", "a", "eth0", "all", "..", "/", "\0", "\ud800", "é" * 9, "%d", "x" * 300, "-1", "auto"),
    *("10.1.0.0/24", "10.1.0.5", "0.0.0.0/0", "::/0", "fd00::/64", "::ffff:1.2.3.4", "fe80::1%1"),
    *("255.255.255.255/32", "224.0.0.1", "02:00:00:00:00:09", "ff:ff:ff:ff:ff:ff", "tcp", "sctp"),
    *("net.ipv4.conf.IFNAME.x", "nftables", "iptables", "1.1.0", "0.2.0", "host-local", "static"),
    *([], {}, [[]], [None], {"": None}, [{}], {"type": "static"}),
]


def mutated_json(data: bytes, most: int, seed: int, mutate: Mutate) -> bytes:
    """Another input: now and then bytes are changed, else a member of the JSON after the head."""
    draw = random.Random(seed)
    head, newline, body = data.partition(b"\n")
    if not newline or draw.random() < 0.3:
        return mutate(data, most)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return mutate(data, most)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        value = _changed(value, draw, depth=0)
    if draw.random() < 0.1:
        head = draw.choice(_known_heads or [head])
    text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    return (head + b"\n" + text.encode(errors="surrogatepass"))[:most]


_known_heads: list[bytes] = []
_known_keys: list[str] = []


def prepare(seeds: Iterable[bytes]) -> None:
    """Take the first lines and the keys that `mutated_json` chooses among from the seeds."""
    _known_heads[:] = sorted({one.partition(b"\n")[0] for one in seeds})
    _known_keys[:] = sorted(schema_keys() | {"prevResult", *RESULT, *RESULT["routes"][0]})  # type: ignore[index]


def _changed(value: Any, draw: random.Random, depth: int) -> Any:
    """`value` with one change, somewhere."""
    if isinstance(value, dict) and value and (depth == 0 or draw.random() < 0.8):
        return _changed_object(value, draw, depth)
    if isinstance(value, list) and value and draw.random() < 0.8:
        return _changed_list(value, draw, depth)
    if isinstance(value, int) and not isinstance(value, bool) and draw.random() < 0.5:
        return value + draw.choice((-1, 1, 7, 2**16, 2**31, 2**32))
    if isinstance(value, str) and value and draw.random() < 0.4:
        at = draw.randrange(len(value))
        return (
            value[:at] + draw.choice(("", "0", "/", ".", "é", "\0", "-", value)) + value[at + 1 :]
        )
    return draw.choice(_VALUES)


def _changed_object(value: dict[str, Any], draw: random.Random, depth: int) -> dict[str, Any]:
    made = dict(value)
    key = draw.choice(list(made))
    match draw.randrange(8):
        case 0:
            del made[key]
        case 1:
            made[draw.choice(_known_keys or ["a"])] = draw.choice(_VALUES)
        case 2:
            made[draw.choice((key.upper(), key.lower(), key.title()))] = draw.choice(_VALUES)
        case _:
            made[key] = _changed(made[key], draw, depth + 1)
    return made


def _changed_list(value: list[Any], draw: random.Random, depth: int) -> list[Any]:
    made = list(value)
    at = draw.randrange(len(made))
    match draw.randrange(6):
        case 0:
            del made[at]
        case 1:
            made.insert(at, made[at])
        case 2:
            made.append(draw.choice(_VALUES))
        case _:
            made[at] = _changed(made[at], draw, depth + 1)
    return made


def words(seeds: Iterable[bytes], extra: Iterable[str] = ()) -> list[bytes]:
    """A dictionary: the keys of the schemas and what stands between quotes in the seeds."""
    found = {key.encode() for key in schema_keys()} | {one.encode() for one in extra}
    for seed in seeds:
        found |= {part for part in seed.split(b'"')[1::2] if 0 < len(part) <= _WORDS_AT_MOST}
    return sorted(found)
