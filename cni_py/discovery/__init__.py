"""Find the instances of a service, choose among them, and go on to the next where one fails.

    with Discovery("etcd:http://10.0.0.1:2379") as services:
        print(services.resolve("web"))
        page = services.call("web", fetch)

A registry is told by its name: `etcd:URL,URL`, `sqlite:PATH` or `consul:URL`. What a registry has
is healthy: the agents of its nodes check, and take out what does not answer. `cni_py.discovery.aio`
is the same for asyncio. The guide is docs/discovery.md.
"""

from cni_py.cluster.store_errors import Denied, StoreError, Unavailable
from cni_py.services.instance import Instance

from .errors import NoInstanceError, UnreachableError
from .threaded import Discovery

__all__ = [
    "Denied",
    "Discovery",
    "Instance",
    "NoInstanceError",
    "StoreError",
    "Unavailable",
    "UnreachableError",
]
