"""What an ADD of a whole network would do: each of its plugins' plan, with the one's before."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import msgspec

from cni_py.ipam.delegation import is_ours
from cni_py.kernel import executables, netns, own_folders, state_files
from cni_py.plugins import planned
from cni_py.plugins.planned import Notes, Step
from cni_py.runtime.requests import attachment_config, environment
from cni_py.skel import EXECUTABLES
from cni_py.spec.call import gate_version, read_request, typed_call
from cni_py.spec.conversion import to_wire
from cni_py.spec.environment import read_environment
from cni_py.spec.errors import CniError

if TYPE_CHECKING:
    from cni_py.runtime import Network, Parameters, Plugin, Runtime
    from cni_py.spec.call import Plugin as Handlers
    from cni_py.spec.results import Result


class PluginPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One plugin's: `known` is false for an executable that is not ours.

    `steps` is what it would do, `conflicts` what is in the way, `unknown` what nobody can say.
    """

    type: str
    known: bool = True
    steps: tuple[Step, ...] = ()
    conflicts: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The network's. `conflicts` are of no single plugin; `result` is what ADD would print.

    The result is missing where it cannot be known; hardware addresses that the kernel picks are.
    """

    network: str
    version: str
    container: str
    netns: str
    ifname: str
    plugins: tuple[PluginPlan, ...]
    conflicts: tuple[str, ...]
    result: dict[str, Any] | None

    @property
    def is_possible(self) -> bool:
        """Whether nothing is in the way."""
        return not self.conflicts and not any(one.conflicts for one in self.plugins)


def plan(runtime: Runtime, network: Network, parameters: Parameters) -> Plan:
    """What `runtime.add` would do now. Changes nothing."""
    with state_files.only_looking():
        conflicts = tuple(_of_none(runtime, network, parameters))
        previous: dict[str, Any] | None = None
        doubt, whole = "", True
        plans = []
        for place, plugin in enumerate(network.plugins):
            notes = Notes()
            known, document = True, None
            try:
                path = executables.find(plugin.type, ":".join(runtime.plugin_path))
                known = is_ours(path) and plugin.type in planned.HANDLERS
                if known:
                    document = _planned(runtime, network, plugin, parameters, previous, notes)
                else:
                    notes.unknown.append(f"what {path} does: it is not cni-py's")
            except CniError as error:
                # What follows the unknown may just lack what is not known.
                (notes.unknown if doubt else notes.conflicts).append(
                    f"{doubt}{error}" if doubt else str(error)
                )
            if notes.unknown or notes.conflicts:
                doubt = f"after plugin {place + 1}, of which not all is known: "
            whole = whole and document is not None and not notes.unknown
            previous = document or previous
            plans.append(_plugin_plan(plugin, known=known, notes=notes))
    return Plan(
        network=network.name,
        version=network.version,
        container=parameters.container_id,
        netns=parameters.netns,
        ifname=parameters.ifname,
        plugins=tuple(plans),
        conflicts=conflicts,
        result=previous if whole else None,
    )


def _plugin_plan(plugin: Plugin, *, known: bool, notes: Notes) -> PluginPlan:
    return PluginPlan(
        type=plugin.type,
        known=known,
        steps=tuple(notes.steps),
        conflicts=tuple(dict.fromkeys(notes.conflicts)),
        unknown=tuple(notes.unknown),
    )


def _planned(
    runtime: Runtime,
    network: Network,
    plugin: Plugin,
    parameters: Parameters,
    previous: dict[str, Any] | None,
    notes: Notes,
) -> dict[str, Any] | None:
    """The result's document; None where the configuration is wrong, with all that is.

    Raises the CniError that ADD would.
    """
    config = attachment_config(network, plugin, parameters.capabilities, previous)
    environ = environment("ADD", parameters, ":".join(runtime.plugin_path), runtime.environ)
    executable = EXECUTABLES[plugin.type]
    request = read_request(read_environment(environ), environ, config)
    request = gate_version(request, executable.versions)
    handlers = cast("Handlers", import_module(executable.module))
    call = typed_call(request, handlers.Config)
    for mistake in handlers.mistakes(call):
        notes.conflict(str(mistake))
    if notes.conflicts:
        return None
    result: Result = planned.plan(plugin.type, call, notes)
    return to_wire(result, network.version)


def _of_none(runtime: Runtime, network: Network, parameters: Parameters) -> list[str]:
    """What is in the way of every plugin."""
    found = []
    try:
        parameters.validate()
        cached = runtime.cached(network.name, parameters.container_id, parameters.ifname)
        if cached is not None:
            again = f"cni-py del {network.name} {parameters.netns}"
            found.append(f"the result cache has this attachment already: {again}")
    except CniError as error:
        found.append(str(error))
    try:
        container = netns.open_netns(parameters.netns)
    except CniError as error:
        found.append(str(error))
    else:
        if container is None:
            found.append(f"there is no network namespace at {parameters.netns}")
        else:
            container.close()
    kept = (runtime.cache_folder, os.path.join(runtime.cache_folder, "results"))
    for path in (*own_folders.STATE, *kept):
        problem = own_folders.not_own(path)
        if problem:
            found.append(f"{path} {problem}: cni-py does not work with it")
    return found
