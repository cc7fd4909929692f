"""The CNI error object: its codes, its exception, its JSON form.

Codes 0-99 are reserved by the protocol, 100 and above are a plugin's own (CNI spec, "Error").
8 and 999 are not in the specification's table; every runtime meets them because the reference
library emits them.
"""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from typing import TYPE_CHECKING, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

P = ParamSpec("P")

_PASSING = frozenset({
    errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM,
})  # fmt: skip
_OF_THE_DISK = frozenset({errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EROFS})


class Code(IntEnum):
    """Error codes of the protocol, by the names that the Go library gives them."""

    UNKNOWN = 0
    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    INVALID_NETNS = 8
    TRY_AGAIN_LATER = 11
    PLUGIN_NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    INTERNAL = 999


class CniError(Exception):
    """A refusal or failure as the protocol reports it.

    `msg` says what is wrong, with the key and the value; `details` says what would be right, or
    what the kernel said. `code` is any non-negative integer: a delegate may bring a private one.
    `key` is the path of the key that is wrong, such as `ipam.ranges[0][1].subnet`, where that is
    known; it is not part of the protocol's object.
    """

    def __init__(self, code: int, msg: str, details: str = "", *, key: str = "") -> None:
        super().__init__(msg)
        self.code = int(code)
        self.msg = msg
        self.details = details
        self.key = key

    def __str__(self) -> str:
        """The text form used when one error is quoted inside another: `msg; details`."""
        return f"{self.msg}; {self.details}" if self.details else self.msg


def require_none(errors: Iterable[CniError]) -> None:
    """Raises the first of them."""
    for error in errors:
        raise error


def refusals(
    key: str, check: Callable[P, object], *args: P.args, **more: P.kwargs
) -> Iterator[CniError]:
    """What the check raises, if it does; `key` is the key it is about where it does not say so."""
    try:
        check(*args, **more)
    except CniError as error:
        error.key = error.key or key
        yield error


def code_of(number: int) -> Code:
    """The code for what the system answers with an errno.

    11 for a shortage that passes, 5 for what the disk refuses, else 999.
    """
    if number in _PASSING:
        return Code.TRY_AGAIN_LATER
    return Code.IO_FAILURE if number in _OF_THE_DISK else Code.INTERNAL


def cni_error_of(error: BaseException) -> CniError:
    """The CNI error that a failed verb reports: the first one along the chain of causes, else 999.

    What the system refused without anybody having said what for is named by its path.

    Only explicit causes (`raise ... from`) count: an unrelated error that happened to be handled
    at the time must not speak for this one (rule D-05).
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, CniError):
            return cause
        if isinstance(cause, OSError) and cause.errno:
            where = f"{cause.filename}: " if cause.filename else ""
            return CniError(code_of(cause.errno), f"{where}{os.strerror(cause.errno)}")
        cause = cause.__cause__
    return CniError(Code.INTERNAL, str(error) or type(error).__name__)
