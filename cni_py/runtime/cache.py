"""The result cache: what each attachment was made of, in libcni's form and place (spec.md 15).

A file an attachment, `<folder>/results/<network>-<container>-<ifname>`. Names cannot be told apart
(all three may have dashes), so what is inside counts. Nothing here follows a link, and a damaged
file is never taken for an attachment that nobody has.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.kernel import processes, state_files
from cni_py.kernel.errors import kernel_error
from cni_py.kernel.lock import try_lock
from cni_py.kernel.own_folders import require_own
from cni_py.spec.attachment import Attachment
from cni_py.spec.config import decode_json
from cni_py.spec.conversion import embedded_version, from_wire, to_wire
from cni_py.spec.errors import CniError, Code
from cni_py.spec.names import is_container_id, validate_container_id, validate_ifname
from cni_py.spec.names import validate_network_name as _validate_network_name

from .networks import Network, parse_network
from .requests import Parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_FOLDER = "/var/lib/cni"
_RESULTS = "results"
_KIND = "cniCacheV1"
_PAUSE_SECONDS = 0.02
# NAME_MAX, less what a file is called until it is whole.
_MOST_NAME_BYTES = 255 - len(state_files.NEW)


class _Record(msgspec.Struct, omit_defaults=True):
    """A file's content (K-03)."""

    kind: str
    container_id: str = msgspec.field(name="containerId")
    config: bytes
    ifname: str = msgspec.field(name="ifName")
    network: str = msgspec.field(name="networkName")
    netns: str = ""
    args: list[tuple[str, str]] = msgspec.field(name="cniArgs", default_factory=list)
    capabilities: dict[str, Any] = msgspec.field(name="capabilityArgs", default_factory=dict)
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class Cached:
    """What the cache knows of an attachment.

    `config` is the network's configuration as the ADD had it, without drop-in files; `document` the
    result as the last plugin printed it.
    """

    network: str
    parameters: Parameters
    config: bytes = field(repr=False)
    document: dict[str, Any] | None = field(repr=False)

    @property
    def attachment(self) -> Attachment:
        """Its identity."""
        return Attachment(self.network, self.parameters.container_id, self.parameters.ifname)

    def configuration(self) -> Network:
        """The network as the ADD had it. Raises CniError 6 or 7."""
        return parse_network(self.config)


@dataclass(frozen=True)
class Listing:
    """What a cache has: the attachments, and the paths of files that tell nothing, with a reason.

    Among those are results of very old runtimes, which have no network in them.
    """

    attachments: tuple[Cached, ...]
    unreadable: dict[str, str]


class Cache:
    """The cache below a folder."""

    def __init__(self, folder: str = DEFAULT_FOLDER) -> None:
        self.folder = os.path.join(folder, _RESULTS)

    def path(self, attachment: Attachment) -> str:
        """The file of an attachment. Raises CniError for what is no name (K-02)."""
        _validate_network_name(attachment.network)
        validate_container_id(attachment.container_id)
        validate_ifname(attachment.ifname)
        name = "-".join(attachment)
        if len(os.fsencode(name)) > _MOST_NAME_BYTES:
            msg = f"network, container id and interface are too long together: {name[:40]}..."
            details = f"they name a file: at most {_MOST_NAME_BYTES} bytes"
            raise CniError(Code.INVALID_ENVIRONMENT, msg, details)
        return os.path.join(self.folder, name)

    def write(self, network: Network, parameters: Parameters, document: dict[str, Any]) -> None:
        """Keep a result. Raises CniError: KernelError where it cannot be written."""
        attachment = Attachment(network.name, parameters.container_id, parameters.ifname)
        record = _Record(
            kind=_KIND,
            container_id=parameters.container_id,
            config=network.source,
            ifname=parameters.ifname,
            network=network.name,
            netns=parameters.netns,
            args=list(parameters.args),
            capabilities=dict(parameters.capabilities),
            result=document,
        )
        state_files.save(self.path(attachment), msgspec.json.encode(record))

    def read(self, attachment: Attachment) -> Cached | None:
        """What is known of the attachment; None without a file.

        Raises CniError 6 where the file is damaged, or is of another attachment, 5 where it cannot
        be read.
        """
        path = self.path(attachment)
        data = _content(path)
        if data is None:
            return None
        try:
            record = _decoded(data)
        except ValueError as error:
            return _legacy(path, data, attachment, str(error))
        if _attachment(record) != attachment:
            msg = f"{path} is of another attachment, {'/'.join(_attachment(record))}"
            raise CniError(Code.DECODING_FAILURE, msg)
        return _cached(record)

    def remove(self, attachment: Attachment) -> None:
        """Forget the attachment, whatever is at its path. Raises KernelError."""
        path = self.path(attachment)
        try:
            state_files.remove(path)
        except OSError as error:
            raise kernel_error(f"remove {path}", error) from error

    def listing(self) -> Listing:
        """Everything there is, sorted by file names. Raises CniError for the folder."""
        try:
            names = sorted(os.listdir(self.folder), key=os.fsencode)
        except FileNotFoundError:
            return Listing((), {})
        except OSError as error:
            raise kernel_error(f"list {self.folder}", error) from error
        found, unreadable = [], {}
        for name in names:
            if name == state_files.DAMAGED:
                continue
            path = os.path.join(self.folder, name)
            try:
                data = _content(path)
                record = None if data is None else _decoded(data)
                if record is None:
                    continue
                if not record.network or not is_container_id(record.container_id):
                    raise ValueError("it names no attachment")
                if self.path(_attachment(record)) != path:
                    raise ValueError("it is of another attachment than its name says")
            except (ValueError, CniError) as error:
                unreadable[path] = str(error)
            else:
                found.append(_cached(record))
        return Listing(tuple(found), unreadable)

    @contextmanager
    def shared(self, cancel: int | None, seconds: float | None) -> Iterator[None]:
        """Let nobody collect while the block attaches or detaches."""
        with self._locked(fcntl.LOCK_SH, cancel, seconds):
            yield

    @contextmanager
    def alone(self, cancel: int | None, seconds: float | None) -> Iterator[None]:
        """Let nobody attach or detach while the block collects."""
        with self._locked(fcntl.LOCK_EX, cancel, seconds):
            yield

    @contextmanager
    def _locked(self, kind: int, cancel: int | None, seconds: float | None) -> Iterator[None]:
        """A lock on the folder itself, which other runtimes do not know: there is no file of it.

        Raises CniError 11 after `seconds`, and processes.CancelledError. The lock is asked for
        again and again: flock(2) has no limit, and an alarm is the main thread's alone, which is
        the caller's.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        fd = self._opened()
        try:
            while not try_lock(fd, kind):
                if deadline is not None and time.monotonic() > deadline:
                    msg = f"the lock on {self.folder} was not free in time"
                    raise CniError(Code.TRY_AGAIN_LATER, msg, "attachments change, or GC runs")
                if select.select([] if cancel is None else [cancel], [], [], _PAUSE_SECONDS)[0]:
                    raise processes.CancelledError
            yield
        finally:
            os.close(fd)

    def _opened(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
            # Who can write there could have anybody's network taken down.
            require_own((os.path.dirname(self.folder), self.folder))
            return os.open(self.folder, flags)
        except OSError as error:
            raise kernel_error(f"open {self.folder}", error) from error


def previous_result(cached: Cached | None, version: str) -> dict[str, Any] | None:
    """The cached result as prevResult in `version`; None without one. Raises CniError 6."""
    if cached is None or cached.document is None:
        return None
    document = cached.document
    if embedded_version(document) == version:
        return document
    try:
        return to_wire(from_wire(document, ""), version)
    except (ValueError, CniError) as error:
        msg = f'failed to convert cached result to config version "{version}": {error}'
        raise CniError(Code.DECODING_FAILURE, msg) from None


def _content(path: str) -> bytes | None:
    try:
        return state_files.content(path)
    except FileNotFoundError:
        return None
    except state_files.DamagedError as error:
        raise CniError(Code.DECODING_FAILURE, f"{path} is damaged: {error}") from None
    except OSError as error:
        raise kernel_error(f"read {path}", error) from error


def _decoded(data: bytes) -> _Record:
    """Raises ValueError for what is no record."""
    try:
        record = msgspec.json.decode(data, type=_Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    if record.kind != _KIND:
        raise ValueError(f"its kind is {record.kind[:32]!r}")
    return record


def _legacy(path: str, data: bytes, attachment: Attachment, problem: str) -> Cached:
    """A bare result, as very old runtimes kept it (K-04). Raises CniError 6 for anything else."""
    try:
        raw = decode_json(data)
    except ValueError as error:
        raise CniError(Code.DECODING_FAILURE, f"{path} is damaged: {error}") from None
    if not isinstance(raw, dict) or "kind" in raw:
        raise CniError(Code.DECODING_FAILURE, f"{path} is damaged: {problem}")
    parameters = Parameters(attachment.container_id, "", attachment.ifname)
    return Cached(attachment.network, parameters, b"", raw)


def _attachment(record: _Record) -> Attachment:
    return Attachment(record.network, record.container_id, record.ifname)


def _cached(record: _Record) -> Cached:
    parameters = Parameters(
        record.container_id,
        record.netns,
        record.ifname,
        tuple(record.args),
        record.capabilities,
    )
    return Cached(record.network, parameters, record.config, record.result)
