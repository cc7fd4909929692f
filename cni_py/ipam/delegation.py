"""Delegating to the plugin that a configuration names, for addresses mostly (spec.md 12).

One that is ours runs in this process, with the same handlers; any other is executed from CNI_PATH.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from cni_py.kernel import executables
from cni_py.spec import delegation
from cni_py.spec.call import typed_call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni_py.spec.call import Plugin, Request
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

MODULES = {
    "cluster": "cni_py.ipam.cluster",
    "dhcp": "cni_py.ipam.dhcp",
    "host-local": "cni_py.ipam.host_local",
    "static": "cni_py.ipam.static",
}
# A lease is given back through the interface that it is for.
_NEED_INTERFACE = frozenset({"dhcp"})

# Every executable of ours says so: a script in its first lines, a launcher in its last.
MARKER = b"# cni-py executable"
_HEAD_BYTES, _TAIL_BYTES = 512, 64


def needs_interface(ipam_type: str) -> bool:
    """Whether the delegate's DEL comes before the interface goes, and not after (W-G3)."""
    return ipam_type in _NEED_INTERFACE


class Delegates:
    """Calls of the plugins that a configuration names; `modules` are ours, by their names."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules

    def add(self, request: Request, name: str) -> Result:
        """The delegate's ADD. Raises its CniError."""
        plugin, path = self.find(request, name)
        if plugin is not None:
            call = typed_call(_as(request, "ADD"), plugin.Config)
            with call.scope:
                return plugin.add(call)
        return delegation.result(_execute(request, path, "ADD"), request.cni_version)

    def delete(self, request: Request, name: str) -> None:
        """The delegate's DEL. Raises its CniError."""
        plugin, path = self.find(request, name)
        if plugin is not None:
            plugin.delete(typed_call(_as(request, "DEL"), plugin.DelConfig))
        else:
            _execute(request, path, "DEL")

    def check(self, request: Request, name: str) -> None:
        """The delegate's CHECK. Raises its CniError."""
        plugin, path = self.find(request, name)
        if plugin is not None:
            plugin.check(typed_call(request, plugin.Config))
        else:
            _execute(request, path, "CHECK")

    def status(self, request: Request, name: str) -> None:
        """The delegate's STATUS. Raises its CniError."""
        plugin, path = self.find(request, name)
        if plugin is not None:
            plugin.status(typed_call(request, plugin.Config))
        else:
            _execute(request, path, "STATUS")

    def gc(self, request: Request, name: str, collection: Collection) -> None:
        """The delegate's GC. Raises its CniError.

        Another's cannot be asked what it would do, and takes a missing list for an empty one
        (G-07).
        """
        plugin, path = self.find(request, name)
        if plugin is not None:
            plugin.gc(typed_call(request, plugin.DelConfig), collection)
        elif collection.dry or collection.valid is None:
            collection.unasked.append(path)
        else:
            _execute(request, path, "GC")

    def find(self, request: Request, name: str) -> tuple[Plugin | None, str]:
        """Our module for the executable that CNI_PATH leads to, or that executable's path."""
        path = executables.find(name, request.environment.path)
        if name in self._modules and is_ours(path):
            return cast("Plugin", import_module(self._modules[name])), path
        return None, path


_IPAM = Delegates(MODULES)
ipam_add, ipam_delete, ipam_check = _IPAM.add, _IPAM.delete, _IPAM.check
ipam_status, ipam_gc = _IPAM.status, _IPAM.gc


def _as(request: Request, verb: str) -> Request:
    """The request as the delegate sees it: a DEL may be part of a failing ADD (DG-05)."""
    return request._replace(environment=request.environment._replace(verb=verb))


def is_ours(path: str) -> bool:
    """Whether the file is an executable of this project."""
    try:
        with open(path, "rb") as file:
            if MARKER in file.read(_HEAD_BYTES):
                return True
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return MARKER in file.read()
    except OSError:
        return False


def _execute(request: Request, path: str, verb: str) -> bytes:
    """Run the delegate with our environment and input, `CNI_COMMAND` replaced (DG-02, DG-03)."""
    environ: dict[str, Any] = {**request.environ, "CNI_COMMAND": verb}
    return executables.execute(path, environ, request.stdin, says=_say)


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
