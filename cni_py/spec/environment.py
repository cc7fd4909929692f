"""The CNI_* environment: which verb needs which variable, and what the values may be.

The order of the checks is the reference's (spec.md section 2.2): an invalid value is reported
before anything that is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .errors import CniError, Code
from .names import validate_container_id, validate_ifname

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ATTACHMENT_VERBS = frozenset({"ADD", "CHECK", "DEL"})
VERBS = frozenset({*ATTACHMENT_VERBS, "GC", "STATUS", "VERSION"})


class Environment(NamedTuple):
    """What the runtime said in the environment; absent and empty are the same (E-02)."""

    verb: str
    container_id: str
    netns: str
    ifname: str
    args: str
    path: str
    netns_override: str

    @property
    def may_share_netns(self) -> bool:
        """Whether the plugin may act in its own namespace (N-02)."""
        return self.netns_override.upper() == "TRUE" or self.netns_override == "1"


class _Variable(NamedTuple):
    name: str
    required_by: frozenset[str]
    validate: Callable[[str], None] | None = None


_VARIABLES = (
    _Variable("CNI_COMMAND", VERBS),
    _Variable("CNI_CONTAINERID", ATTACHMENT_VERBS, validate_container_id),
    _Variable("CNI_NETNS", frozenset({"ADD", "CHECK"})),
    _Variable("CNI_IFNAME", ATTACHMENT_VERBS, validate_ifname),
    _Variable("CNI_ARGS", frozenset()),
    _Variable("CNI_PATH", VERBS - {"VERSION"}),
    _Variable("CNI_NETNS_OVERRIDE", frozenset()),
)


def read_environment(environ: Mapping[str, str]) -> Environment:
    """Read and check the variables in the reference's order. Raises CniError 4."""
    values = [environ.get(variable.name, "") for variable in _VARIABLES]
    verb = values[0]
    missing = []
    for variable, value in zip(_VARIABLES, values, strict=True):
        if verb not in variable.required_by and variable.name != "CNI_COMMAND":
            continue
        if not value:
            missing.append(variable.name)
        elif variable.validate is not None:
            variable.validate(value)
    if missing:
        msg = f"required env variables [{','.join(missing)}] missing"
        raise CniError(Code.INVALID_ENVIRONMENT, msg)
    environment = Environment(*values)
    if verb != "DEL":
        _validate_netns(environment.netns)
    return environment


def _validate_netns(netns: str) -> None:
    """A result and the records of an attachment name it; what cannot be named is never added."""
    try:
        netns.encode()
    except UnicodeEncodeError:
        msg = "CNI_NETNS is not UTF-8"
        raise CniError(Code.INVALID_ENVIRONMENT, msg, ascii(netns)) from None
