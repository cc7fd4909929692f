"""tuning's sysctl keys: what file each means, and whether the administrator allows it (6.4).

A key is a path below /proc/sys with dots or slashes, in any mixture. What stands between `conf` or
`neigh` and the last name is an interface's name, which can have dots itself.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.kernel.errors import kernel_error
from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALLOWLIST = "/etc/cni/tuning/allowlist.conf"

_ROOT = "net"
_IFNAME = "IFNAME"
_SEPARATORS = re.compile(r"[./]")
# net.ipv4.conf.<interface>.<name>, and the same of ipv6, mpls, ... and of neighbours.
_OF_INTERFACES = ("conf", "neigh")
_BEFORE_INTERFACE = 3
# The folders that are not one interface's.
_SHARED = ("all", "default")


class Sysctl(NamedTuple):
    """A key as it was configured, its parts below /proc/sys, and the value to set."""

    key: str
    parts: tuple[str, ...]
    value: str

    @property
    def path(self) -> str:
        """What `kernel.sysctl` takes."""
        return "/".join(self.parts)


def parse(settings: Mapping[str, str], ifname: str) -> dict[str, Sysctl]:
    """The settings by their file. `IFNAME` in a key stands for `ifname`.

    Raises CniError 7 for a key outside `net`, for two keys of one file, and for a value that the
    file cannot give back.
    """
    parsed: dict[str, Sysctl] = {}
    for key, value in settings.items():
        one = Sysctl(key, _parts(key, ifname), value)
        if "\0" in value or "\n" in value:
            msg = f'sysctl "{key}" has a value of more than one line'
            raise CniError(Code.INVALID_CONFIG, msg, f"it is {value!r}")
        if one.path in parsed:
            raise _duplicated(f'"{parsed[one.path].key}" and "{key}" are both {one.path}')
        parsed[one.path] = one
    return parsed


def require_distinct(stdin: bytes) -> None:
    """Raises CniError 7 if an object of sysctls in the configuration's text has a key twice.

    Once it is decoded the last one has won.
    """
    root = json.loads(stdin, object_pairs_hook=_Members)
    for folder in ([], ["args", "cni"]):
        for one in _members(root, [*folder, "sysctl"]):
            keys = [key for key, _ in one]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise _duplicated(f'"{twice}" stands there twice')


def require_allowed(sysctls: Iterable[Sysctl], ifname: str) -> None:
    """Raises CniError 7 for one that the allowlist does not have, where there is an allowlist.

    A line is a regular expression for the whole of a key, in either spelling, with the interface's
    own name or with `IFNAME` (W-TU4).
    """
    lines = _allowlist()
    if lines is None:
        return
    patterns = [_compiled(line) for line in lines]
    for one in sysctls:
        forms = _spellings(one.parts, ifname)
        if not any(pattern.fullmatch(form) for pattern in patterns for form in forms):
            msg = f"Sysctl {one.key} is not allowed"
            details = f"only the following sysctls are allowed: [{' '.join(lines)}] ({ALLOWLIST})"
            raise CniError(Code.INVALID_CONFIG, msg, details)


class _Members(list[tuple[str, Any]]):
    """An object of the JSON text with all its members."""


def _members(value: Any, path: list[str]) -> list[_Members]:
    """The objects at a path of keys, which are read in any case."""
    found = [value] if isinstance(value, _Members) else []
    for name in path:
        found = [
            item
            for one in found
            for key, item in one
            if key.lower() == name and isinstance(item, _Members)
        ]
    return found


def _parts(key: str, ifname: str) -> tuple[str, ...]:
    parts = _SEPARATORS.split(key)
    if parts[0] != _ROOT or len(parts) == 1 or not all(parts) or "\0" in key:
        msg = f'invalid net sysctl key: "{key}"'
        details = "a key is net.<name>..., with dots or slashes, below /proc/sys/net"
        raise CniError(Code.INVALID_CONFIG, msg, details)
    for index, part in enumerate(parts):
        if _IFNAME in part:
            parts[index] = _substituted(key, part, ifname)
            break
    if len(parts) > _BEFORE_INTERFACE and parts[_BEFORE_INTERFACE - 1] in _OF_INTERFACES:
        interface = ".".join(parts[_BEFORE_INTERFACE:-1])
        parts[_BEFORE_INTERFACE:-1] = [interface] if interface else []
    return tuple(parts)


def _substituted(key: str, part: str, ifname: str) -> str:
    name = part.replace(_IFNAME, ifname, 1)
    if name in _SHARED:
        msg = f'sysctl "{key}" is not one of a single interface'
        raise CniError(Code.INVALID_CONFIG, msg, f"CNI_IFNAME is {ifname}")
    return name


def _spellings(parts: tuple[str, ...], ifname: str) -> set[str]:
    placed = tuple(_IFNAME if part == ifname else part for part in parts)
    return {separator.join(one) for separator in "./" for one in (parts, placed)}


def _allowlist() -> list[str] | None:
    try:
        with open(ALLOWLIST, encoding="utf-8", errors="surrogateescape") as file:
            return [line.strip() for line in file if line.strip()]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise kernel_error(f"read {ALLOWLIST}", error) from error


def _compiled(line: str) -> re.Pattern[str]:
    try:
        return re.compile(line)
    except re.error as error:
        msg = f'"{line}" in {ALLOWLIST} is not a regular expression'
        raise CniError(Code.INVALID_CONFIG, msg, str(error)) from error


def _duplicated(details: str) -> CniError:
    return CniError(Code.INVALID_CONFIG, "duplicated sysctl keys are not allowed", details)
