"""What libcni is to Go: load networks' configurations, and attach containers to them.

    runtime = Runtime()
    network = runtime.network("containers")
    attached = runtime.add(network, Parameters("c1", "/run/netns/c1"))
    runtime.delete(network, Parameters("c1", "/run/netns/c1"))

Any plugins are run, as executables. `cni_py.runtime.aio` is the same for asyncio. The guide is
docs/runtime.md.
"""

from cni_py.spec.attachment import Attachment
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import DNS, Interface, IPConfig, Result, Route

from .cache import Cached, Listing
from .errors import GivenUpError, PluginError, SeveralErrors
from .folders import Folder, UnknownNetworkError, load_file, load_folder, load_network
from .networks import Network, Plugin, parse_network, parse_plugin
from .requests import Parameters
from .runtime import Attached, Cancellation, Runtime

__all__ = [
    "DNS",
    "Attached",
    "Attachment",
    "Cached",
    "Cancellation",
    "CniError",
    "Code",
    "Folder",
    "GivenUpError",
    "IPConfig",
    "Interface",
    "Listing",
    "Network",
    "Parameters",
    "Plugin",
    "PluginError",
    "Result",
    "Route",
    "Runtime",
    "SeveralErrors",
    "UnknownNetworkError",
    "load_file",
    "load_folder",
    "load_network",
    "parse_network",
    "parse_plugin",
]
