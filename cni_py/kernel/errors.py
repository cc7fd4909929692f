"""The kernel's refusals as CNI errors."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cni_py.spec.errors import CniError, Code, code_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class KernelError(CniError):
    """A system call or netlink request that failed.

    `what` names the operation and its object, `errno` is the kernel's number, `text` the extended
    acknowledgement where there is one. The code is `code_of`'s.
    """

    def __init__(self, what: str, number: int, text: str = "") -> None:
        super().__init__(code_of(number), f"{what}: {os.strerror(number)}", text)
        self.errno = number


def kernel_error(what: str, error: OSError) -> KernelError:
    """The KernelError for a failed system call."""
    return KernelError(what, error.errno or errno.EIO)


@contextmanager
def unavailable(unsupported: str = "") -> Iterator[None]:
    """For STATUS: what keeps an ADD from succeeding is reported as code 50.

    `unsupported` are the details where the kernel says that it has no such thing.
    """
    try:
        yield
    except CniError as error:
        details = error.details
        if unsupported and isinstance(error, KernelError) and error.errno == errno.EOPNOTSUPP:
            details = unsupported
        raise CniError(Code.PLUGIN_NOT_AVAILABLE, error.msg, details) from error
