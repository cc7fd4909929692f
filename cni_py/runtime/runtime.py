"""Attaching containers to networks: what libcni is to Go (spec.md 14)."""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from cni_py.kernel import executables, netns, processes
from cni_py.spec import versions
from cni_py.spec.attachment import Attachment
from cni_py.spec.errors import CniError, Code

from . import answers, requests
from .cache import DEFAULT_FOLDER as DEFAULT_CACHE
from .cache import Cache, Cached, Listing, previous_result
from .errors import GivenUpError, PluginError, SeveralErrors
from .folders import DEFAULT_FOLDER, Folder, load_folder, load_network
from .networks import usable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cni_py.spec.results import Result

    from .networks import Network
    from .requests import Parameters

DEFAULT_PATH = ("/opt/cni/bin",)

_log = logging.getLogger("cni_py.runtime")
_PREVIOUS_SINCE = versions.parse(versions.CHECK_SINCE)
_GC_SINCE = versions.parse(versions.GC_SINCE)


class Cancellation:
    """A way for another thread, or a signal's handler, to have a call given up."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def cancel(self) -> None:
        """Have the call given up that it was passed to, now or as soon as it begins."""
        os.eventfd_write(self.fd, 1)

    def __del__(self) -> None:
        os.close(self.fd)


class Attached(NamedTuple):
    """What an ADD produced: typed, and the JSON object as the last plugin printed it."""

    result: Result
    document: dict[str, Any]


class _Limits(NamedTuple):
    """How long a call may take, and by what it is given up."""

    deadline: float | None
    cancel: int | None

    @property
    def seconds(self) -> float | None:
        """What is left."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


@dataclass(frozen=True)
class Runtime:
    """Calls networks' plugins, as executables of whatever origin.

    `plugin_path` are the folders with the plugins; `config_folder` has the networks'
    configurations; results are kept below `cache_folder`, where libcni keeps them. `seconds` is the
    limit for one call of a method, None for none. `environ` is added to the plugins' environment.

    Methods that call plugins take `cancel`. They raise PluginError for a plugin that failed,
    GivenUpError after `cancel`, other CniErrors for the rest: 11 where the time was over. A plugin
    that runs then is ended: SIGTERM, and SIGKILL five seconds later. What plugins write to stderr
    goes to the logger `cni_py.runtime` as warnings.

    Objects hold nothing open, and may be used by several threads. As in libcni it is the caller's
    to have one call at a time for one container. GC waits until no other method changes an
    attachment, and the other way round, in whatever process.
    """

    plugin_path: tuple[str, ...] = DEFAULT_PATH
    config_folder: str = DEFAULT_FOLDER
    cache_folder: str = DEFAULT_CACHE
    seconds: float | None = None
    environ: Mapping[str, str] = field(default_factory=dict)

    def network(self, name: str) -> Network:
        """The network of that name in the configuration folder. Raises UnknownNetworkError."""
        return load_network(name, self.config_folder)

    def networks(self) -> Folder:
        """Every network in the configuration folder, and what cannot be read there."""
        return load_folder(self.config_folder)

    def traced(self, parent: str, state: str = "", baggage: str = "") -> Runtime:
        """The same with a trace's context for the plugins, in the W3C's form (spec.md 20.2).

        Without it TRACEPARENT and the like are passed on as this process has them.
        """
        context = {"TRACEPARENT": parent, "TRACESTATE": state, "BAGGAGE": baggage}
        given = {name: value for name, value in context.items() if value}
        kept = {name: value for name, value in self.environ.items() if name not in context}
        return replace(self, environ={**kept, **given})

    def add(
        self,
        network: Network,
        parameters: Parameters,
        *,
        undo: bool = False,
        cancel: Cancellation | None = None,
    ) -> Attached:
        """Attach the container: every plugin's ADD, each with the result of the one before.

        The result is kept in the cache. Where it fails nothing is kept, and what the plugins did
        before stays until `delete`, as in libcni; with `undo` their DELs run first, and what fails
        of that is added to the error as a note. What the cache has already is never undone: that
        would take away what an earlier ADD has made.
        """
        parameters.validate()
        limits = self._limits(cancel)
        with self._shared(limits):
            # First, for a name that no file can have: nothing has been made yet.
            is_cached = os.path.lexists(self._cache.path(_attachment(network, parameters)))
            undo = undo and not is_cached
            document: dict[str, Any] | None = None
            try:
                for index, plugin in enumerate(network.plugins):
                    config = requests.attachment_config(
                        network, plugin, parameters.capabilities, document
                    )
                    answer = self._call(network, index, "ADD", config, parameters, limits)
                    document, result = _understood(answer, network, index)
                if document is None:
                    raise _no_plugins(network)
                self._cache.write(network, parameters, document)
            except BaseException as error:
                if undo:
                    self._undo(network, parameters, document, error)
                raise
        return Attached(result, document)

    def check(
        self, network: Network, parameters: Parameters, *, cancel: Cancellation | None = None
    ) -> None:
        """Have every plugin compare the attachment with what ADD has set.

        Nothing is done with `disableCheck`. Raises CniError 1 for a version older than 0.4.0.
        """
        if versions.parse(network.version) < _PREVIOUS_SINCE:
            msg = f'configuration version "{network.version}" does not support the CHECK command'
            raise CniError(Code.INCOMPATIBLE_VERSION, msg)
        if network.disable_check:
            return
        parameters.validate()
        limits = self._limits(cancel)
        attachment = _attachment(network, parameters)
        with self._shared(limits):
            previous = previous_result(self._cache.read(attachment), network.version)
            for index, plugin in enumerate(network.plugins):
                config = requests.attachment_config(
                    network, plugin, parameters.capabilities, previous
                )
                self._call(network, index, "CHECK", config, parameters, limits)

    def delete(
        self, network: Network, parameters: Parameters, *, cancel: Cancellation | None = None
    ) -> None:
        """Detach the container: every plugin's DEL, the last plugin first.

        The first one that fails ends it, and the result stays in the cache, so that it can be done
        again. `parameters.netns` may be empty, or lead nowhere any more.
        """
        parameters.validate()
        limits = self._limits(cancel)
        with self._shared(limits):
            self._delete(network, parameters, limits)

    def gc(
        self,
        network: Network,
        valid: Iterable[tuple[str, str]] | None = None,
        *,
        cancel: Cancellation | None = None,
    ) -> tuple[Attachment, ...]:
        """Take away what is of no attachment that lives; those that it has deleted by the cache.

        `valid` are (container id, interface) of those that live on the network. Without it they are
        those in the cache whose namespace is still there: then other runtimes, with a cache of
        their own, must have no container on the network. Every other one in the cache is deleted;
        then the plugins' GC runs, from version 1.1.0 on. It goes on after what fails: raises
        SeveralErrors at the end. Nothing is done with `disableGC`.
        """
        if network.disable_gc:
            return ()
        limits = self._limits(cancel)
        with self._given_up("gc"), self._cache.alone(limits.cancel, limits.seconds):
            cached = self._of_network(network, doubt=valid is not None)
            alive = _alive(cached) if valid is None else set(valid)
            errors: list[CniError] = []
            deleted = []
            for one in cached:
                pair = (one.parameters.container_id, one.parameters.ifname)
                if pair in alive:
                    continue
                try:
                    self._delete(network, one.parameters, limits)
                    deleted.append(one.attachment)
                except CniError as error:
                    msg = f"failed to delete stale attachment {' '.join(pair)}: {error}"
                    errors.append(CniError(error.code, msg))
            if versions.parse(network.version) >= _GC_SINCE:
                errors += self._collect(network, sorted(alive), limits)
        if errors:
            raise SeveralErrors(errors)
        return tuple(deleted)

    def status(self, network: Network, *, cancel: Cancellation | None = None) -> None:
        """Ask every plugin whether an ADD could be served; nothing before version 1.1.0.

        Raises the first refusal: code 50 where none could, 51 where with limits.
        """
        if versions.parse(network.version) < versions.parse(versions.STATUS_SINCE):
            return
        limits = self._limits(cancel)
        with self._given_up("status"):
            for index, plugin in enumerate(network.plugins):
                config = requests.network_config(network, plugin)
                self._call(network, index, "STATUS", config, requests.NOBODY, limits)

    def validate(
        self,
        network: Network,
        capabilities: Iterable[str] = (),
        *,
        cancel: Cancellation | None = None,
    ) -> frozenset[str]:
        """The capabilities that the network declares, once everything fits.

        Raises SeveralErrors: for each plugin that is not there or does not speak the network's
        version, and for each of `capabilities` that no plugin declares.
        """
        wanted = network.version or versions.WHEN_MISSING
        errors: list[CniError] = []
        for index, plugin in enumerate(network.plugins):
            try:
                supported = self.supported(plugin.type, cancel=cancel)
            except GivenUpError:
                raise
            except CniError as error:
                errors.append(PluginError(error, plugin.type, index, "VERSION"))
                continue
            if wanted not in supported:
                msg = f'plugin {plugin.type} does not support config version "{wanted}"'
                refusal = CniError(Code.INCOMPATIBLE_VERSION, msg, f"it has {', '.join(supported)}")
                errors.append(PluginError(refusal, plugin.type, index, "VERSION"))
        for name in sorted(set(capabilities) - network.capabilities):
            msg = f"no plugin of {network.name} has the capability {name}"
            declared = ", ".join(sorted(network.capabilities)) or "none"
            errors.append(CniError(Code.INVALID_CONFIG, msg, f"they have: {declared}"))
        if errors:
            raise SeveralErrors(errors)
        return network.capabilities

    def supported(self, type_: str, *, cancel: Cancellation | None = None) -> tuple[str, ...]:
        """The protocol versions that a plugin says it speaks. Raises CniError."""
        limits = self._limits(cancel)
        with self._given_up("VERSION"):
            path = executables.find(type_, self._path)
            try:
                answer = executables.execute(
                    path,
                    requests.probing_environment(self.environ),
                    requests.version_config(),
                    says=lambda text: _say(type_, text),
                    seconds=limits.seconds,
                    cancel=limits.cancel,
                )
            except CniError as error:
                if error.msg == "unknown CNI_COMMAND: VERSION":
                    return (versions.ALL[0],)
                raise
        return answers.supported(answer)

    def negotiated(self, network: Network, *, cancel: Cancellation | None = None) -> Network:
        """The network in the highest version that it allows and that all its plugins speak.

        Raises CniError 1 where there is none, and what `supported` raises.
        """
        allowed = network.versions or (versions.WHEN_MISSING,)
        spoken = {
            one: self.supported(one, cancel=cancel) for one in {x.type for x in network.plugins}
        }
        common = [one for one in usable(allowed) if all(one in have for have in spoken.values())]
        if not common:
            msg = f"{network.name} has no version that all its plugins speak"
            listed = [f"{name}: {', '.join(have)}" for name, have in sorted(spoken.items())]
            details = "; ".join([f"it allows {', '.join(allowed)}", *listed])
            raise CniError(Code.INCOMPATIBLE_VERSION, msg, details)
        return network.in_version(common[-1])

    def cached(self, network: str, container_id: str, ifname: str = "eth0") -> Cached | None:
        """What the cache knows of an attachment. Raises CniError 6 for a damaged file."""
        return self._cache.read(Attachment(network, container_id, ifname))

    def attachments(self) -> Listing:
        """Everything in the cache, and the files in it that tell nothing."""
        return self._cache.listing()

    @property
    def _cache(self) -> Cache:
        return Cache(self.cache_folder)

    @property
    def _path(self) -> str:
        return ":".join(self.plugin_path)

    def _limits(self, cancel: Cancellation | None) -> _Limits:
        deadline = None if self.seconds is None else time.monotonic() + self.seconds
        return _Limits(deadline, None if cancel is None else cancel.fd)

    @contextmanager
    def _given_up(self, what: str) -> Iterator[None]:
        try:
            yield
        except processes.CancelledError as cancelled:
            error = GivenUpError(what)
            for note in getattr(cancelled, "__notes__", ()):
                error.add_note(note)
            raise error from None

    @contextmanager
    def _shared(self, limits: _Limits) -> Iterator[None]:
        with (
            self._given_up("the call"),
            self._cache.shared(limits.cancel, limits.seconds),
        ):
            yield

    def _call(
        self,
        network: Network,
        index: int,
        verb: str,
        config: bytes,
        parameters: Parameters,
        limits: _Limits,
    ) -> bytes:
        """One plugin's verb; its stdout. Raises PluginError, processes.CancelledError."""
        type_ = network.plugins[index].type
        try:
            path = executables.find(type_, self._path)
            if limits.seconds == 0:
                raise CniError(Code.TRY_AGAIN_LATER, "the time was over before it was called")
            return executables.execute(
                path,
                requests.environment(verb, parameters, self._path, self.environ),
                config,
                says=lambda text: _say(type_, text),
                seconds=limits.seconds,
                cancel=limits.cancel,
            )
        except CniError as error:
            raise PluginError(error, type_, index, verb) from error

    def _delete(self, network: Network, parameters: Parameters, limits: _Limits) -> None:
        attachment = _attachment(network, parameters)
        previous = None
        if versions.parse(network.version) >= _PREVIOUS_SINCE:
            try:
                previous = previous_result(self._cache.read(attachment), network.version)
            except CniError as error:
                # As libcni does: a damaged cache keeps nothing attached.
                _log.warning("DEL without the previous result: %s", error)
        for index in reversed(range(len(network.plugins))):
            self._delete_one(network, index, parameters, previous, limits)
        self._cache.remove(attachment)

    def _delete_one(
        self,
        network: Network,
        index: int,
        parameters: Parameters,
        previous: dict[str, Any] | None,
        limits: _Limits,
    ) -> None:
        plugin = network.plugins[index]
        config = requests.attachment_config(network, plugin, parameters.capabilities, previous)
        self._call(network, index, "DEL", config, parameters, limits)

    def _undo(
        self,
        network: Network,
        parameters: Parameters,
        document: dict[str, Any] | None,
        cause: BaseException,
    ) -> None:
        """Every plugin's DEL; what fails is noted. It is not given up with the ADD."""
        if versions.parse(network.version) < _PREVIOUS_SINCE:
            document = None
        limits = self._limits(None)
        for index in reversed(range(len(network.plugins))):
            try:
                self._delete_one(network, index, parameters, document, limits)
            except CniError as error:
                cause.add_note(f"and it could not be undone: {error}")

    def _of_network(self, network: Network, *, doubt: bool) -> list[Cached]:
        """Its attachments in the cache. Without `doubt` a file that may be of it is CniError 6."""
        listing = self._cache.listing()
        own = os.path.join(self._cache.folder, f"{network.name}-")
        damaged = [path for path in listing.unreadable if path.startswith(own)]
        if damaged and not doubt:
            msg = f"GC does not know whose {damaged[0]} is: {listing.unreadable[damaged[0]]}"
            details = "detach that container, or remove the file if there is none"
            raise CniError(Code.DECODING_FAILURE, msg, details)
        return [one for one in listing.attachments if one.network == network.name]

    def _collect(
        self, network: Network, valid: list[tuple[str, str]], limits: _Limits
    ) -> Iterator[CniError]:
        for index, plugin in enumerate(network.plugins):
            config = requests.collection_config(network, plugin, valid)
            try:
                self._call(network, index, "GC", config, requests.NOBODY, limits)
            except CniError as error:
                yield error


def _attachment(network: Network, parameters: Parameters) -> Attachment:
    return Attachment(network.name, parameters.container_id, parameters.ifname)


def _alive(cached: list[Cached]) -> set[tuple[str, str]]:
    """Those whose namespace is not certainly gone."""
    return {
        (one.parameters.container_id, one.parameters.ifname)
        for one in cached
        if not (one.parameters.netns and netns.why_gone(one.parameters.netns, lambda _found: True))
    }


def _no_plugins(network: Network) -> CniError:
    return CniError(Code.INVALID_CONFIG, f"network {network.name} has no plugins")


def _understood(answer: bytes, network: Network, index: int) -> tuple[dict[str, Any], Result]:
    try:
        return answers.result(answer, network.version)
    except CniError as error:
        raise PluginError(error, network.plugins[index].type, index, "ADD") from error


def _say(type_: str, text: str) -> None:
    for line in text.splitlines():
        _log.warning("%s: %s", type_, line)
