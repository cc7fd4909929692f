"""One invocation as a value: what the environment and stdin said, decoded and gated.

`read_call` is the reference's order of checks (spec.md 2.2 and 2.3) from the bytes on; it is pure,
so that an executable, a server and a test run the same code.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from . import versions
from .attachment import Attachment
from .config import PluginConfig, decode_config, decode_json, member
from .conversion import from_wire, require_family
from .errors import CniError, Code
from .names import validate_network_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .collection import Collection
    from .environment import Environment
    from .results import Result

C = TypeVar("C", bound=PluginConfig)

_GATED_VERBS = {
    "CHECK": versions.CHECK_SINCE,
    "GC": versions.GC_SINCE,
    "STATUS": versions.STATUS_SINCE,
}
_VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")


class Request(NamedTuple):
    """A call before any plugin's own types: decoded, named, with a version."""

    environment: Environment
    environ: Mapping[str, str]
    stdin: bytes
    raw: dict[str, Any]
    network: str
    cni_version: str

    @property
    def attachment(self) -> Attachment:
        """Whose resources this call is about."""
        return Attachment(self.network, self.environment.container_id, self.environment.ifname)


class Call(NamedTuple, Generic[C]):
    """A call of one plugin: the request, its typed configuration, and the previous result.

    What ADD has begun is entered into `scope`, which is left once the result is out, or by the
    error that keeps it from coming out: so it is undone also when nobody can hear of it.
    """

    request: Request
    config: C
    prev_result: Result | None
    scope: ExitStack

    @property
    def verb(self) -> str:
        """`ADD`, `DEL`, `CHECK`, `STATUS` or `GC`."""
        return self.request.environment.verb

    @property
    def container_id(self) -> str:
        """CNI_CONTAINERID."""
        return self.request.environment.container_id

    @property
    def netns(self) -> str:
        """The path in CNI_NETNS; `""` when there is none."""
        return self.request.environment.netns

    @property
    def ifname(self) -> str:
        """CNI_IFNAME."""
        return self.request.environment.ifname

    @property
    def args(self) -> str:
        """CNI_ARGS as it came."""
        return self.request.environment.args

    @property
    def attachment(self) -> Attachment:
        """Whose resources this call is about."""
        return self.request.attachment


class Plugin(Protocol):
    """What a plugin's module offers: one declaration of its keys, and a handler per verb.

    `DelConfig` is what DEL and GC read: it may ask for less, so that a configuration that ADD would
    refuse keeps nothing allocated.
    """

    Config: type[PluginConfig]
    DelConfig: type[PluginConfig]

    def add(self, call: Call[Any]) -> Result:
        """Attach. Raises CniError after undoing what it did."""

    def delete(self, call: Call[Any]) -> None:
        """Detach: succeeds on what is gone, goes on after what fails."""

    def check(self, call: Call[Any]) -> None:
        """Compare the attachment with what ADD set."""

    def status(self, call: Call[Any]) -> None:
        """Raise CniError 50 or 51 when an ADD could not be served."""

    def mistakes(self, call: Call[Any]) -> Iterator[CniError]:
        """What is wrong with the configuration itself, whatever the host: ADD raises the first."""

    def gc(self, call: Call[Any], collection: Collection) -> None:
        """Take away what the collection takes; go on after what fails."""


def read_request(environment: Environment, environ: Mapping[str, str], stdin: bytes) -> Request:
    """Decode stdin and check the network's name. Raises CniError 6 or 7.

    The version is not judged here but read: `cni_version` is `""` for a value that is not text, so
    that an unknown verb is still reported as such (2.2, step 5).
    """
    try:
        raw = decode_json(stdin)
    except ValueError as error:
        raise CniError(Code.DECODING_FAILURE, f"error unmarshall network config: {error}") from None
    if raw is None:
        raw = {}
    name = member(raw, "name") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not (name is None or isinstance(name, str)):
        at, value = ("$.name", name) if isinstance(raw, dict) else ("$", raw)
        shown = msgspec.json.encode(value).decode()[:80]
        msg = f"error unmarshall network config: wrong type at {at}"
        raise CniError(Code.DECODING_FAILURE, msg, f"got {shown}")
    if not name:
        raise CniError(Code.INVALID_CONFIG, "missing network name")
    validate_network_name(name)
    return Request(environment, environ, stdin, raw, name, "")


def gate_version(request: Request, supported: tuple[str, ...]) -> Request:
    """Read `cniVersion` and let it through the verb's gate (2.3). Raises CniError 1 or 6."""
    version = member(request.raw, "cniVersion")
    if not (version is None or isinstance(version, str)):
        msg = "decoding version from network config: wrong type at $.cniVersion"
        shown = msgspec.json.encode(version).decode()[:80]
        raise CniError(Code.DECODING_FAILURE, msg, f"expected a string, got {shown}")
    version = version or versions.WHEN_MISSING
    verb = request.environment.verb
    since = _GATED_VERBS.get(verb)
    if since is None:
        versions.require_exact(version, supported)
    else:
        versions.require_verb(verb, since, version, supported)
    return request._replace(cni_version=version)


def typed_call(request: Request, config: type[C]) -> Call[C]:
    """Read the configuration as `config`, and prevResult where the verb has one.

    Raises CniError 7 for the configuration and 6 for prevResult. DEL does without a prevResult that
    cannot be read: it must not leave a container behind because of a damaged cache (DL-04).
    """
    verb = request.environment.verb
    typed = decode_config(request.raw, config)
    if verb not in ("ADD", "CHECK", "DEL"):
        return Call(request, typed, None, ExitStack())
    try:
        return Call(request, typed, previous_result(request), ExitStack())
    except CniError:
        if verb != "DEL":
            raise
        return Call(request, typed, None, ExitStack())


def previous_result(request: Request) -> Result | None:
    """The prevResult, None when absent or null (PR-04 to PR-06). Raises CniError 6."""
    raw = member(request.raw, "prevResult")
    if raw is None:
        return None
    try:
        if isinstance(raw, dict):
            require_family(raw, request.cni_version)
        return from_wire(raw, request.cni_version)
    except ValueError as error:
        msg = f"could not parse prevResult: {error}"
        raise CniError(Code.DECODING_FAILURE, msg, "paths start at prevResult") from None


class _ValidAttachment(msgspec.Struct, frozen=True):
    container_id: str = msgspec.field(name="containerID")
    ifname: str


class _ValidAttachments(msgspec.Struct, frozen=True):
    """The two spellings of GC's key, the newer first (G-08)."""

    valid: tuple[_ValidAttachment, ...] | None = msgspec.field(
        default=None, name="cni.dev/valid-attachments"
    )
    older: tuple[_ValidAttachment, ...] | None = msgspec.field(
        default=None, name="cni.dev/attachments"
    )


def valid_attachments(request: Request) -> frozenset[Attachment] | None:
    """GC's list of what still lives; None when the runtime gave no list (G-07).

    Absent and null mean that nothing is known, and nothing may then be removed; an empty list means
    that nothing lives. Raises CniError 7 for a list that cannot be read.
    """
    decoded = decode_config(
        {key: request.raw[key] for key in _VALID_ATTACHMENTS if key in request.raw},
        _ValidAttachments,
    )
    listed = decoded.older if decoded.valid is None else decoded.valid
    if listed is None:
        return None
    return frozenset(Attachment(request.network, one.container_id, one.ifname) for one in listed)
