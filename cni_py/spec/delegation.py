"""How a plugin that was executed answered: exit status, stdout and stderr as a value or an error.

The texts are the reference's (spec.md 12.1, 12.4, 12.6). Finding and starting the executable is not
here: nothing in this package touches the system.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .config import decode_json
from .conversion import from_wire
from .errors import CniError, Code

if TYPE_CHECKING:
    from .results import Result


def validate_plugin_name(name: str) -> None:
    """Refuse a name that is not one path component (F-01, F-03). Raises CniError 7."""
    if not name:
        raise CniError(Code.INVALID_CONFIG, "no plugin name provided", "ipam.type is empty")
    if "/" in name or "\0" in name or name in (".", ".."):
        raise CniError(Code.INVALID_CONFIG, f"invalid plugin name: {name}")


def search_folders(path: str) -> list[str]:
    """CNI_PATH's absolute folders; an empty or relative entry would mean the caller's (F-04)."""
    return [folder for folder in path.split(":") if folder.startswith("/")]


def not_found(name: str, path: str) -> CniError:
    """The refusal when no folder of CNI_PATH has the executable."""
    folders = " ".join(path.split(":"))
    msg = f'failed to find plugin "{name}" in path [{folders}]'
    return CniError(Code.INTERNAL, msg, "relative entries of CNI_PATH are not searched")


def failure(status: str, stdout: bytes, stderr: bytes) -> CniError:
    """The error of an executable that failed (X-12); `status` is as in `exit status 3`."""
    if not stdout.strip():
        if not stderr.strip():
            return CniError(Code.UNKNOWN, f"netplugin failed with no error message: {status}")
        quoted = json.dumps(stderr.decode(errors="replace"), ensure_ascii=False)
        return CniError(Code.UNKNOWN, f"netplugin failed: {quoted}: {status}")
    try:
        reported = decode_json(stdout)
        return _reported_error(reported)
    except ValueError as error:
        quoted = json.dumps(stdout.decode(errors="replace"), ensure_ascii=False)
        msg = f"netplugin failed but error parsing its diagnostic message {quoted}: {error}"
        return CniError(Code.UNKNOWN, msg)


def result(stdout: bytes, config_version: str) -> Result:
    """The result of an ADD (X-30, X-31). Raises CniError 6."""
    try:
        raw = decode_json(stdout)
        return from_wire({} if raw is None else raw, config_version)
    except ValueError as error:
        msg = f"failed to unmarshal raw result: {error}"
        raise CniError(Code.DECODING_FAILURE, msg) from None


def _reported_error(reported: Any) -> CniError:
    """The CNI error on a failing plugin's stdout. Raises ValueError when it is not one."""
    if not isinstance(reported, dict):
        raise ValueError("not a JSON object")
    code, msg, details = (reported.get(key) for key in ("code", "msg", "details"))
    if isinstance(code, bool) or not isinstance(code, int | None) or (code or 0) < 0:
        raise ValueError(f"code is {code!r}")
    if not isinstance(msg, str | None) or not isinstance(details, str | None):
        raise ValueError("msg or details is not a string")
    return CniError(
        code or Code.UNKNOWN, msg or "the plugin failed without a message", details or ""
    )
