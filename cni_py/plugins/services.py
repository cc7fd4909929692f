"""services: declare what a container offers, for the agent to register and to check.

Nothing here talks to a registry: the declaration is written down, and `cni-py agent --services`
reads it. DEL takes it away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.cluster import node_file
from cni_py.kernel.errors import unavailable
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.services import declaration
from cni_py.services.declaration import Declaration, Service
from cni_py.spec.config import PluginConfig, decode_config
from cni_py.spec.errors import CniError, Code, require_none

from . import interface, records, sandbox
from .chained import container_ips
from .evidence import Evidence
from .teardown import Teardown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

# What containerd and CRI-O pass a pod's annotations by, and which of them is read.
ANNOTATIONS, ANNOTATION = "io.kubernetes.cri.pod-annotations", "cni-py.dev/services"


class _RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    services: tuple[Service, ...] | None = None
    """The capability `services`: what the container offers. It wins over all others."""
    annotations: dict[str, str] = msgspec.field(default_factory=dict, name=ANNOTATIONS)
    """The capability of that name: a pod's annotations. `cni-py.dev/services` has a list as JSON,
    which wins over `args` and the configuration.
    """


class _CniArgs(msgspec.Struct, frozen=True, kw_only=True):
    services: tuple[Service, ...] | None = None
    """What the container offers. It wins over the configuration."""


class _Args(msgspec.Struct, frozen=True, kw_only=True):
    cni: _CniArgs = _CniArgs()
    """Arguments for CNI plugins."""


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL needs to know: nothing."""


class Config(PluginConfig, frozen=True, kw_only=True):
    """services' configuration."""

    services: tuple[Service, ...] = ()
    """What each container of the network offers that declares nothing itself."""
    runtime_config: _RuntimeConfig = _RuntimeConfig()
    """What the capabilities bring."""
    args: _Args = _Args()
    """What the runtime passes in `args.cni`."""


class _Annotated(msgspec.Struct, frozen=True):
    services: tuple[Service, ...]


class Record(records.Record, frozen=True, kw_only=True):
    """The declaration, in the plugin's record of the attachment: `declaration.Written` reads it."""

    declaration: Declaration


RECORDS = records.Records(declaration.FOLDER, Record)


def add(call: Call[Config]) -> Result:
    """Write down what the container declares; returns the previous result."""
    result, services = interface.previous(call), wanted(call)
    if not services:
        RECORDS.drop(call.attachment)
        return result
    declared = _declaration(call, result, services)
    container, _ = call.scope.enter_context(sandbox.opened(call))
    place = records.sandbox_of(container)
    with step("services"):
        call.scope.enter_context(undone_on_failure(lambda: RECORDS.drop(call.attachment)))
        RECORDS.save(Record(attachment=call.attachment, sandbox=place, declaration=declared))
    return result


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Take the declaration away: the agent does the rest."""
    RECORDS.drop(call.attachment)


def check(call: Call[Config]) -> None:
    """Compare what is written down with what is declared. Raises CniError naming the difference."""
    result, services = interface.previous(call), wanted(call)
    record = RECORDS.load(call.attachment)
    if not services:
        if record is not None:
            raise interface.differs("the declaration of services", "none", RECORDS.folder)
        return
    if record is None:
        raise interface.differs("the declaration of services", "one", "none")
    with sandbox.opened(call) as (container, _):
        if not record.sandbox.is_it(container):
            raise interface.differs("the declaration's container", call.netns, record.sandbox.path)
    declared = _declaration(call, result, services)
    have = record.declaration
    interface.require_same("the declared addresses", declared.addresses, have.addresses)
    interface.require_same("the declared services", _named(services), _named(have.services))
    if declared != have:
        raise interface.differs("the declaration of services", "as configured", "another")


def status(call: Call[Config]) -> None:
    """Raises CniError 50 for a configuration that ADD refuses, 51 where nobody keeps services."""
    with unavailable():
        wanted(call)
    if not node_file.is_running(declaration.KEEPER):
        msg = "no agent on this host keeps services: none is checked, registered or named"
        raise CniError(Code.LIMITED_CONNECTIVITY, msg, "cni-py agent --services keeps them")


def gc(call: Call[DelConfig], collection: Collection) -> None:  # noqa: ARG001 - a handler's form
    """Take away the declarations of the attachments that the collection takes."""
    teardown = Teardown()
    taken = RECORDS.taken(collection, "declared services", Evidence().against_record)
    for record in taken:
        with teardown.step():
            RECORDS.drop(record.attachment)
    teardown.finish()


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What is wrong with what is declared, wherever."""
    config = call.config
    yield from declaration.mistakes(config.services, "services")
    yield from declaration.mistakes(config.args.cni.services or (), "args.cni.services")
    yield from declaration.mistakes(config.runtime_config.services or (), "runtimeConfig.services")
    try:
        annotated = _annotated(config)
    except CniError as error:
        yield error
    else:
        yield from declaration.mistakes(annotated or (), f"the annotation {ANNOTATION}")


def wanted(call: Call[Config]) -> tuple[Service, ...]:
    """What the container declares: the first source that says anything. Raises CniError 7."""
    require_none(mistakes(call))
    config = call.config
    sources = (config.runtime_config.services, _annotated(config), config.args.cni.services)
    return next((one for one in sources if one is not None), config.services)


def _annotated(config: Config) -> tuple[Service, ...] | None:
    """What a pod's annotation declares, None without one. Raises CniError 7."""
    text = config.runtime_config.annotations.get(ANNOTATION)
    if text is None:
        return None
    try:
        raw: Any = msgspec.json.decode(text)
        return decode_config({"services": raw}, _Annotated).services
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        msg = f"the annotation {ANNOTATION} is no JSON"
        raise CniError(Code.INVALID_CONFIG, msg, str(error)) from None
    except CniError as error:
        msg = f"the annotation {ANNOTATION}: {error.msg}"
        raise CniError(Code.INVALID_CONFIG, msg, error.details) from None


def _declaration(call: Call[Any], result: Result, services: tuple[Service, ...]) -> Declaration:
    ips = container_ips(result, call.ifname)
    addresses = tuple(dict.fromkeys(str(one.address.ip) for one in ips))
    if not addresses:
        msg = f"No IP addresses supplied on interface: {call.ifname}"
        raise CniError(Code.INVALID_CONFIG, msg, "a service has one: in prevResult")
    made = Declaration(attachment=call.attachment, addresses=addresses, services=services)
    try:
        made.require_instances()
    except ValueError as error:
        msg = f"no registry takes a service of this container: {error}"
        raise CniError(Code.INVALID_CONFIG, msg, "by the network's name and prevResult") from None
    return made


def _named(services: tuple[Service, ...]) -> str:
    return ", ".join(f"{one.name} {one.port}/{one.protocol}" for one in services)
