"""nftables through libnftables' Python binding: JSON in, one transaction a call (libnftables(3)).

A context works in the network namespace that it was opened in.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import time
from typing import TYPE_CHECKING, Any

from cni_py.spec.errors import CniError, Code

from . import interruption
from .errors import KernelError
from .netns import Identity, own_identity

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBRARY = "libnftables.so.1"

Command = dict[str, Any]

# Set elements carry comments of up to 128 bytes (NFTNL_UDATA_COMMENT_MAXLEN).
COMMENT_BYTES = 120

_WORDS = "words"
_ASKING_SECONDS = 10.0

_ERRNO_BY_TEXT = {
    os.strerror(number): number
    for number in (
        errno.ENOENT,
        errno.EEXIST,
        errno.EBUSY,
        errno.EPERM,
        errno.EOPNOTSUPP,
        errno.EINVAL,
        errno.ENOMEM,
        errno.ENFILE,
        errno.EINTR,
    )
}


def in_words(text: str) -> Command:
    """A command in nft(8)'s words, for what libnftables (1.0.6) does not read as JSON.

    Such as a map to a concatenation, of which it makes a set. A command that only defines, and may
    be repeated, since it has a transaction of its own.
    """
    return {_WORDS: text}


_contexts: dict[Identity, Nftables] = {}


def nftables() -> Nftables:
    """The context of the namespace that the thread is in, opened once (2 ms).

    Raises CniError 999 when the library is not installed.
    """
    own = own_identity()
    if own not in _contexts:
        _contexts[own] = Nftables()
    return _contexts[own]


def nftables_if_installed() -> Nftables | None:
    """The same; None where the library is not installed."""
    try:
        return nftables()
    except CniError:
        return None


def forget_contexts(keep: Identity | None = None) -> None:
    """Close all contexts but that of the namespace `keep`.

    A forked child must not talk through its parent's, and a vanished namespace's may not stay.
    """
    for one in [one for one in _contexts if one != keep]:
        del _contexts[one]


class Nftables:
    """A libnftables context; `nftables()` gives the one to use."""

    def __init__(self) -> None:
        try:
            # The binding's destructor fails noisily when its constructor did not find the library.
            ctypes.CDLL(_LIBRARY)
            from nftables import Nftables as Library

            self._library = Library(_LIBRARY)
        except (ImportError, OSError) as error:
            msg = f"nftables is not available: {error}"
            raise CniError(Code.INTERNAL, msg, "install the package libnftables1") from error

    def apply(self, what: str, *commands: Command) -> None:
        """Carry out all commands in one transaction, or none. Raises KernelError, Interrupted.

        Commands of `in_words` are carried out before, in a transaction of their own.
        """
        interruption.point()
        words = [one[_WORDS] for one in commands if _WORDS in one]
        if words:
            self._library.set_json_output(False)
            self._require(what, self._library.cmd("\n".join(words)))
        rest = [one for one in commands if _WORDS not in one]
        if rest:
            self._require(what, self._run_json(json.dumps({"nftables": rest})))

    def listed(self, what: str, command: Command) -> list[dict[str, Any]] | None:
        """The objects that a `list` command gives; None if there is no such thing."""
        text = json.dumps({"nftables": [command]})
        status, output, errors = _uninterrupted(lambda: self._run_json(text))
        if status == 0:
            objects: list[dict[str, Any]] = json.loads(output)["nftables"] if output else []
            return objects
        error = _error(what, errors)
        if error.errno == errno.ENOENT:
            return None
        raise error

    def element(self, table: str, name: str, key: str) -> str | None:
        """The listing of one element of a set or map; None if it is not in it.

        libnftables has no JSON form of this query before 1.0.8: the caller looks for its own label.
        """
        self._library.set_json_output(False)
        text = f"get element {table} {name} {{ {key} }}"
        status, output, errors = _uninterrupted(lambda: self._library.cmd(text))
        if status == 0:
            listing: str = output
            return listing
        error = _error(f"look up {key} in {table} {name}", errors)
        if error.errno == errno.ENOENT:
            return None
        raise error

    def _require(self, what: str, ended: tuple[int, str, str]) -> None:
        status, _, errors = ended
        if status != 0:
            raise _error(what, errors)

    def _run_json(self, text: str) -> tuple[int, str, str]:
        self._library.set_json_output(True)
        status, output, errors = self._library.cmd(text)
        return status, output, errors


def _uninterrupted(ask: Callable[[], tuple[int, str, str]]) -> tuple[int, str, str]:
    """Ask again while others change the tables meanwhile; the library only reports that.

    Raises Interrupted.
    """
    deadline = time.monotonic() + _ASKING_SECONDS
    while True:
        ended = ask()
        if os.strerror(errno.EINTR) not in ended[2] or time.monotonic() > deadline:
            return ended
        interruption.point()


def _error(what: str, errors: str) -> KernelError:
    first = errors.strip().splitlines()[0] if errors.strip() else "no message"
    number = next(
        (number for text, number in _ERRNO_BY_TEXT.items() if text in errors), errno.EPROTO
    )
    return KernelError(what, number, first)
