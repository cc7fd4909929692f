"""What a container declares: the services that it offers, and how to see whether they answer.

The plugin `services` writes a declaration down, and the keeper in the agent reads it: nothing of an
ADD asks a registry. Everything of it comes from whoever starts containers, so it is bounded, and
holds nothing that could mean something else where it ends up: in DNS, in a registry, in a request.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.spec.attachment import Attachment
from cni_py.spec.dns_names import dns_name
from cni_py.spec.errors import CniError, Code

from .instance import Instance, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER = "/run/cni-py/services"
# Whoever keeps the services of this host holds the lock of this name: `node_file.take`. No network
# of an agent can be called so.
KEEPER = "/run/cni-py/cluster/@services"

MOST_SERVICES = 32
CHECKS = ("tcp", "http")

_PORTS = range(1, 65536)
_SECONDS = (0.1, 3600.0)
_TIMEOUT_SECONDS = (0.05, 60.0)
_TIMES = range(1, 101)

# What a request's first line can have between its blanks.
_PATH = re.compile("/[!-~]{0,1023}")
_HOST = re.compile("[A-Za-z0-9.:\\[\\]_-]{0,253}")


class Check(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How to see whether a service answers. Without one it is taken to answer."""

    type: str = "tcp"
    """`tcp`: a connection is accepted; `http`: a GET is answered with a status of 200 to 399."""
    port: int = 0
    """The port to ask, 1 to 65535; 0: the service's."""
    path: str = "/"
    """http: what to get: a path, with a query where needed, at most 1024 characters."""
    host: str = ""
    """http: the header `Host`; none: the address and the port."""
    interval_seconds: float = 5.0
    """Seconds from one check to the next, 0.1 to 3600; each time up to a tenth less."""
    timeout_seconds: float = 2.0
    """Seconds that a check may take, 0.05 to 60."""
    rise: int = 1
    """How many checks in a row have to succeed before it answers, 1 to 100."""
    fall: int = 3
    """How many checks in a row have to fail before it does not, 1 to 100."""

    @property
    def bound(self) -> float:
        """Seconds from a service's end to its removal, at most: `fall` checks, one hanging last."""
        return self.fall * max(self.interval_seconds, self.timeout_seconds) + self.timeout_seconds


class Service(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A service that a container offers."""

    name: str
    """A DNS label in small letters: what others call it by."""
    port: int
    """The container's port, 1 to 65535."""
    protocol: Protocol = "tcp"
    """`tcp`, `udp` or `sctp`."""
    weight: int = 1
    """Its share of the requests beside others of the name, 1 to 65535."""
    metadata: dict[str, str] = {}
    """Anything that clients are to know: at most 32 lines of up to 512 bytes each, by keys of
    letters, digits, `-` and `_`.
    """
    check: Check | None = None
    """How to see whether it answers; none: it is taken to answer as long as it is there."""


def instance_of(service: Service, **place: Any) -> Instance:
    """The service as registries have it, at a place: `id`, `node`, `network` and `addresses`.

    Raises ValueError for what none takes.
    """
    return Instance(
        service=service.name,
        port=service.port,
        protocol=service.protocol,
        weight=service.weight,
        metadata=service.metadata,
        **place,
    )


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """What one attachment declares; `addresses` are the container's, as texts, in its order."""

    attachment: Attachment
    addresses: tuple[str, ...]
    services: tuple[Service, ...]

    def require_instances(self) -> None:
        """Raises ValueError where no registry takes the services with these addresses."""
        for one in self.services:
            place = {"network": self.attachment.network, "addresses": self.addresses}
            instance_of(one, id="x", node="x", **place)


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What the keeper reads of the plugin's record: the declaration, and of which boot it is."""

    boot: str
    declaration: Declaration


def mistakes(services: Sequence[Service], key: str) -> Iterator[CniError]:
    """What is wrong with services that were declared at a key of the configuration."""
    if len(services) > MOST_SERVICES:
        yield _refusal(f"{key} has {len(services)} entries", f"at most {MOST_SERVICES}", key)
        return
    seen = set()
    for number, one in enumerate(services):
        place = f"{key}[{number}]"
        yield from _mistakes(one, place)
        identity = (one.name, one.port, one.protocol)
        if identity in seen:
            what = f"{one.name}, port {one.port}/{one.protocol}"
            yield _refusal(f"{place} declares {what} again", "each once", place)
        seen.add(identity)


def _mistakes(one: Service, place: str) -> Iterator[CniError]:
    try:
        instance_of(one, id="x", node="x", network="x", addresses=("192.0.2.1",))
        dns_name(one.name)
    except ValueError as error:
        yield _refusal(f"{place}: {error}", "no registry takes it so", place)
    if one.check is not None:
        yield from _check_mistakes(one, one.check, f"{place}.check")


def _check_mistakes(service: Service, check: Check, place: str) -> Iterator[CniError]:
    if check.type not in CHECKS:
        wrong = f"{place}.type {_shown(check.type)} is not known"
        yield _refusal(wrong, f"one of {', '.join(CHECKS)}", f"{place}.type")
    if check.port and check.port not in _PORTS:
        yield _refusal(f"{place}.port {check.port} is no port", "1 to 65535", f"{place}.port")
    if not check.port and service.protocol != "tcp":
        wrong = f"{place} has no port, and the service's is one of {service.protocol}"
        yield _refusal(wrong, "a check connects by TCP: name the port", f"{place}.port")
    if not _PATH.fullmatch(check.path):
        right = "printable ASCII without blanks that begins with /, at most 1024"
        yield _refusal(f"{place}.path {_shown(check.path)} is no path", right, f"{place}.path")
    if not _HOST.fullmatch(check.host):
        yield _refusal(f"{place}.host {_shown(check.host)} is no host", "a name", f"{place}.host")
    for name, value, (least, most) in (
        ("intervalSeconds", check.interval_seconds, _SECONDS),
        ("timeoutSeconds", check.timeout_seconds, _TIMEOUT_SECONDS),
    ):
        # Nothing compares with what is not a number.
        if not least <= value <= most:
            right = f"{least:g} to {most:g}"
            yield _refusal(f"{place}.{name} {value:g} is not taken", right, f"{place}.{name}")
    for name, times in (("rise", check.rise), ("fall", check.fall)):
        if times not in _TIMES:
            yield _refusal(f"{place}.{name} {times} is not taken", "1 to 100", f"{place}.{name}")


def _refusal(what: str, right: str, key: str) -> CniError:
    return CniError(
        Code.INVALID_CONFIG, f"invalid declaration of a service: {what}", right, key=key
    )


def _shown(text: str) -> str:
    """A text of others, as JSON writes it, and not all of it."""
    return msgspec.json.encode(text[:80].encode(errors="replace").decode()).decode()
