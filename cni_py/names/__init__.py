"""The names of networks' containers: one dnsmasq a network, and what it answers.

`networks()` tells which networks have names on this host, `publish` and `withdraw` change what
they lead to.
"""

from .network import Network, networks
from .publishing import publish, withdraw

__all__ = ["Network", "networks", "publish", "withdraw"]
