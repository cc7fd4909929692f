"""What plugins answer: an ADD's result, and the versions of VERSION (spec.md 12.5, 12.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_py.spec import versions
from cni_py.spec.config import decode_json
from cni_py.spec.conversion import embedded_version, from_wire
from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from cni_py.spec.results import Result


def result(answer: bytes, config_version: str) -> tuple[dict[str, Any], Result]:
    """An ADD's result: as it was printed, its version filled in, and typed (X-30, X-31).

    Raises CniError 6.
    """
    try:
        raw = decode_json(answer)
        document = {} if raw is None else raw
        typed = from_wire(document, config_version)
    except ValueError as error:
        msg = f"failed to unmarshal raw result: {error}"
        raise CniError(Code.DECODING_FAILURE, msg) from None
    assert isinstance(document, dict)
    if not embedded_version(document):
        others = {key: value for key, value in document.items() if key.lower() != "cniversion"}
        document = {"cniVersion": config_version or versions.WHEN_MISSING, **others}
    return document, typed


def supported(answer: bytes) -> tuple[str, ...]:
    """The versions of VERSION's answer (X-22). Raises CniError 6."""
    try:
        raw = decode_json(answer)
    except ValueError as error:
        raise _unreadable(str(error)) from None
    version = raw.get("cniVersion") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not version:
        raise _unreadable("missing field cniVersion")
    listed = raw.get("supportedVersions")
    if not listed and version == versions.ALL[1]:
        return versions.ALL[:2]
    if not isinstance(listed, list) or not listed:
        raise _unreadable("missing field supportedVersions")
    return tuple(str(one) for one in listed)


def _unreadable(problem: str) -> CniError:
    return CniError(Code.DECODING_FAILURE, f"decoding version info: {problem}")
