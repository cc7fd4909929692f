"""Keys that others read: runtimes that note something of theirs in a network's file, and remarks.

No plugin looks at them, and nobody wrote them by mistake.
"""

from __future__ import annotations

# In any case of letters; `nerdctl` begins nerdctl's id and labels.
PREFIXES = ("_", "$", "#", "/", "x-", "comment", "nerdctl")
# Debian's examples for podman, minikube's bridge, and what nerdctl was asked for as a range.
NAMES = ("Documentation", "addIf", "ipRange")
_INSIDE = ("/", ".")

# The same for the keys of a JSON Schema's patternProperties.
PATTERN = f"^([_$#/]|x-|comment|nerdctl)|^({'|'.join(NAMES)})$|[./]"

_FOLDED = frozenset(one.lower() for one in NAMES)


def is_foreign(key: str) -> bool:
    """Whether a key is a remark or for another reader."""
    folded = key.lower()
    return folded.startswith(PREFIXES) or folded in _FOLDED or any(one in key for one in _INSIDE)
