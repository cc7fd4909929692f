"""pyroute2's rtnetlink message classes, without the rest of pyroute2.

Importing `pyroute2` runs its `__init__`, which loads asyncio, ssl, sqlite and a configuration
database: 150 ms that a plugin's call does not have. A bare package object with the same search
path lets the message modules be imported alone (see docs/decisions/0002).
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from types import ModuleType


def _enter_package(name: str) -> None:
    """Make `name`'s submodules importable without running its `__init__`."""
    if name in sys.modules:
        return
    spec = PathFinder.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = ModuleType(name)
    package.__spec__ = spec
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = package


_enter_package("pyroute2")

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: E402
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: E402
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: E402

__all__ = ["ifaddrmsg", "ifinfmsg", "rtmsg"]
