"""Configurations and texts without secrets, to be shown to strangers; pure.

Only what the plugins themselves read is kept: an unknown key can be anything, so its value goes.
What went is then struck out of every other text too.
"""

from __future__ import annotations

import re
from typing import Any

REDACTED = "<redacted>"

_SENSITIVE = re.compile(
    r"token|passw|secret|credential|bearer|private|auth|cookie|api_?key|cert", re.IGNORECASE
)
_IN_TEXT = re.compile(
    r"""(?i)((?:[\w.-]*(?:token|passw|secret|credential|bearer|private|cookie|api_?key)[\w.-]*|"""
    r"""CNI_ARGS|authorization)["']?\s*[:=]\s*)("[^"]*"|'[^']*'|[^\s"',;}]+(?:\s+[\w.~+/=-]{16,})?)"""
)
# Of a list or of the runtime, in no plugin's own configuration.
_OF_LISTS = frozenset(
    {"plugins", "cniversions", "disablecheck", "disablegc", "loadonlyinlinedplugins"}
)
# Objects with keys of the operator's own, in which there is no secret.
_FREE = frozenset({"sysctl", "capabilities"})
# What runtimes and users hand through to a plugin, whatever it is.
_HANDED = frozenset({"args", "cniargs", "cni_args", "env", "labels", "annotations"})
# Shorter ones would strike out half the text.
_STRUCK_CHARACTERS = 6


class Redaction:
    """Takes secrets out; `struck` are the values that went."""

    def __init__(self, known: frozenset[str]) -> None:
        """`known` are the keys that plugins read, in lower case."""
        self._known = known | _OF_LISTS
        self.struck: set[str] = set()

    def configuration(self, raw: Any) -> Any:
        """A configuration with the same keys, and values where they are known to be harmless."""
        if isinstance(raw, list):
            return [self.configuration(one) for one in raw]
        if not isinstance(raw, dict):
            return raw
        return {key: self._member(str(key), value) for key, value in raw.items()}

    def strings(self, value: Any) -> Any:
        """A value with `text` applied to every string in it."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.strings(one) for one in value]
        if isinstance(value, dict):
            return {self.text(str(key)): self.strings(one) for key, one in value.items()}
        return value

    def text(self, text: str) -> str:
        """A text without the values that went, and without what looks like another one."""
        for one in sorted(self.struck, key=len, reverse=True):
            text = text.replace(one, REDACTED)
        return _IN_TEXT.sub(rf"\1{REDACTED}", text)

    def _member(self, key: str, value: Any) -> Any:
        folded = key.lower()
        if folded in _FREE and isinstance(value, dict):
            return {
                name: self._gone(one) if _SENSITIVE.search(str(name)) else one
                for name, one in value.items()
            }
        if folded in _HANDED or folded not in self._known or _SENSITIVE.search(key):
            return self._gone(value)
        return self.configuration(value)

    def _gone(self, value: Any) -> Any:
        """The value's shape alone."""
        if isinstance(value, dict):
            return {key: self._gone(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._gone(one) for one in value]
        if isinstance(value, str) and len(value) >= _STRUCK_CHARACTERS:
            self.struck.add(value)
        return REDACTED
