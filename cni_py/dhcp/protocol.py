"""What the plugin and the daemon say to each other: one JSON object a line, over a unix socket.

A caller sends one request. An acquisition is answered twice, at once by `Begun` and in the end, and
the caller says `Kept` once the result is out: a connection that ends before gives the lease back.
"""

from __future__ import annotations

import msgspec

from cni_py.spec.attachment import Attachment
from cni_py.spec.errors import CniError

from . import options as option_table
from .lease import Lease

DEFAULT_SOCKET = "/run/cni/dhcp.sock"
MAX_LINE_BYTES = 1 << 24


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="say", tag=str.lower):
    pass


class Acquire(_Message, frozen=True, kw_only=True):
    """Get a lease for the interface. `options` go with every DISCOVER and REQUEST."""

    attachment: Attachment
    netns: str
    options: dict[int, bytes]
    priority: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError: it is no request."""
        option_table.require_codes(self.options)


class Kept(_Message, frozen=True, kw_only=True):
    """The lease is in use."""


class LookUp(_Message, frozen=True, kw_only=True):
    """Tell the attachment's lease."""

    attachment: Attachment


class Release(_Message, frozen=True, kw_only=True):
    """Give the attachment's lease back."""

    attachment: Attachment


class List(_Message, frozen=True, kw_only=True):
    """Tell which of the network's attachments have a lease, or are getting one."""

    network: str


class Ping(_Message, frozen=True, kw_only=True):
    """Be there."""


class Begun(_Message, frozen=True, kw_only=True):
    """The acquisition takes at most so many seconds."""

    seconds: float


class Found(_Message, frozen=True, kw_only=True):
    """A lease, or that there is none."""

    lease: Lease | None
    is_over: bool = False


class Listed(_Message, frozen=True, kw_only=True):
    """The attachments."""

    attachments: tuple[Attachment, ...]


class Done(_Message, frozen=True, kw_only=True):
    """It has been done."""


class Failed(_Message, frozen=True, kw_only=True):
    """The CNI error."""

    code: int
    msg: str
    details: str = ""

    @classmethod
    def of(cls, error: CniError) -> Failed:
        """The message for an error."""
        return cls(code=error.code, msg=error.msg, details=error.details)

    def error(self) -> CniError:
        """The error."""
        return CniError(self.code, self.msg, self.details)


Asked = Acquire | Kept | LookUp | Release | List | Ping
Answer = Begun | Found | Listed | Done | Failed

_asked = msgspec.json.Decoder(Asked)
_answer = msgspec.json.Decoder(Answer)


def line(message: Asked | Answer) -> bytes:
    """The message as it is sent."""
    return msgspec.json.encode(message) + b"\n"


def read_asked(data: bytes) -> Asked:
    """Read a request. Raises ValueError."""
    try:
        return _asked.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


def read_answer(data: bytes) -> Answer:
    """Read an answer. Raises ValueError."""
    try:
        return _answer.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
