"""The characters that ids, network names and interface names may have (spec.md section 5)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from .errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALPHANUMERIC = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_WORD = _ALPHANUMERIC | frozenset("_.-")

MAX_IFNAME_BYTES = 15

# /proc/sys/net/ipv4/conf/all is every device's parameters, not those of a device named all.
_PARAMETER_FOLDERS = ("all", "default")

# Go's unicode.IsSpace. str.isspace() also takes U+001C to U+001F, which Go accepts in a name.
_WHITESPACE = frozenset(
    "\t\n\v\f\r \u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000"
    + "".join(chr(code) for code in range(0x2000, 0x200B))
)


# How a byte of the environment that is not UTF-8 shows (PEP 383).
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")


def _is_word(text: str) -> bool:
    """An ASCII letter or digit, then any number of those and `_`, `.`, `-`."""
    return text[:1] in _ALPHANUMERIC and text != "" and _WORD.issuperset(text)


def is_container_id(text: str) -> bool:
    """Whether it can be a container's id (5.1)."""
    return _is_word(text)


def beginning_with(text: str, ids: Iterable[str]) -> list[str]:
    """The ids that a text means: the one that it is, else those that begin with it, sorted."""
    every = set(ids)
    if text in every:
        return [text]
    return sorted(one for one in every if text and one.startswith(text))


def validate_container_id(container_id: str) -> None:
    """Raises CniError 3 for an empty id (only a runtime meets it), 4 for bad characters (5.1)."""
    if not container_id:
        raise CniError(Code.UNKNOWN_CONTAINER, "missing containerID")
    if not _is_word(container_id):
        msg = "invalid characters in containerID"
        raise CniError(Code.INVALID_ENVIRONMENT, msg, container_id)


def validate_network_name(name: str) -> None:
    """Raises CniError 7 for an empty name or bad characters (5.2)."""
    if not name:
        raise CniError(Code.INVALID_CONFIG, "missing network name:")
    if not _is_word(name):
        raise CniError(Code.INVALID_CONFIG, "invalid characters found in network name", name)


def validate_ifname(ifname: str) -> None:
    """Raises CniError 4: empty, more than 15 bytes, a dot name, a separator or blank (5.3)."""
    problem, details = _ifname_problem(ifname)
    if problem:
        raise CniError(Code.INVALID_ENVIRONMENT, f"interface name {problem}", details)


def validate_new_ifname(ifname: str) -> None:
    """What the protocol allows and no interface can be created with. Raises CniError 4."""
    if "%" in ifname:
        msg, details = "interface name contains %", "the kernel fills in a number for %d"
        raise CniError(Code.INVALID_ENVIRONMENT, msg, details)
    if _NOT_UTF_8.search(ifname):
        msg, details = "interface name is not UTF-8", "a result could not name it"
        raise CniError(Code.INVALID_ENVIRONMENT, msg, details)


def _ifname_problem(ifname: str) -> tuple[str, str]:
    if not ifname:
        return "is empty", ""
    if len(os.fsencode(ifname)) > MAX_IFNAME_BYTES:
        return "is too long", "interface name should be less than 16 characters"
    if ifname in (".", ".."):
        return "is . or ..", ""
    if "/" in ifname or ":" in ifname or not _WHITESPACE.isdisjoint(ifname):
        return "contains / or : or whitespace characters", ""
    return "", ""


def validate_device_name(name: str, key: str) -> None:
    """A device name from the configuration, by the kernel's rule. Raises CniError 7."""
    problem, details = _ifname_problem(name)
    if "%" in name or "\0" in name:
        # The kernel fills in a number for `%d`.
        problem = "contains % or NUL"
    if name in _PARAMETER_FOLDERS:
        problem = "is not the name of one device"
    if problem:
        details = details or "a device name has 1 to 15 bytes, no /, : or blank"
        raise CniError(Code.INVALID_CONFIG, f'{key} "{name}" {problem}', details)
