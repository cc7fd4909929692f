"""Where an etcd is, how its members are reached, and as whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from .store_errors import Denied

_SCHEMES = {"http": False, "https": True, "unix": False, "unixs": True}

# In milliseconds. A dead connection is noticed within 15 s; etcd refuses pings under 5 s apart.
_OPTIONS = {
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 2_000,
    "grpc.max_reconnect_backoff_ms": 3_000,
    # A list, and the changes of one revision, are as large as they are.
    "grpc.max_receive_message_length": -1,
    # What was sent is never sent again behind our back, and to nobody but the members.
    "grpc.enable_retries": 0,
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
    "grpc.use_local_subchannel_pool": 1,
}


@dataclass(frozen=True, slots=True)
class EtcdAccess:
    """How to reach an etcd. Paths are of PEM files, read when a connection is first made."""

    endpoints: tuple[str, ...] = ("http://127.0.0.1:2379",)
    """A URL for each member: `http`, `https`, `unix` or `unixs`, as in etcd's own options."""
    ca: str = ""
    """Who signed the members' certificates; `""`: whom the system trusts."""
    certificate: str = ""
    key: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("no endpoint of etcd is given")
        for endpoint in self.endpoints:
            scheme, _, rest = endpoint.partition("://")
            if scheme not in _SCHEMES or not rest.strip("/"):
                raise ValueError(f"{endpoint} is no endpoint: https://HOST:PORT")
        if bool(self.certificate) != bool(self.key):
            raise ValueError("a client's certificate needs its key, and the key its certificate")
        if bool(self.user) != bool(self.password):
            raise ValueError("a user needs a password, and a password its user")

    @property
    def is_readable(self) -> bool:
        """Whether others can read what is said to a member, passwords too: no TLS, no loopback."""
        return not all(map(_is_private, self.endpoints))

    def channel(self, endpoint: str) -> Any:
        """A connection to one member, made when first used. Raises Denied without its files."""
        scheme, _, rest = endpoint.partition("://")
        target = rest.rstrip("/") if scheme.startswith("http") else f"unix:{rest}"
        options = list(_OPTIONS.items())
        if scheme.startswith("unix"):
            # Go refuses the path that would stand there.
            options.append(("grpc.default_authority", "localhost"))  # type: ignore[arg-type]
        if not _SCHEMES[scheme]:
            return aio.insecure_channel(target, options=options)
        return aio.secure_channel(target, self._credentials(), options=options)

    def _credentials(self) -> Any:
        ca, key, certificate = map(_content, (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


def _is_private(endpoint: str) -> bool:
    scheme, _, rest = endpoint.partition("://")
    host = rest.rpartition(":")[0]
    return scheme != "http" or host in ("localhost", "[::1]") or host.startswith("127.")


def _content(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Denied(f"{path}: {error.strerror}") from error
