"""What an operator tells the agent, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from socket import gethostname
from typing import TYPE_CHECKING

from .flannel import PREFIX
from .node_file import DEFAULT_CLUSTER, FOLDER, path_of
from .reconciler import Pace

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address, IPv6Address

# Where a node's identity is kept: it is the same after a boot.
IDENTITY_FOLDER = "/var/lib/cni/cni-py/cluster"
# flannel's: a day.
DEFAULT_TTL = 24 * 3600


@dataclass(frozen=True, slots=True)
class Interfaces:
    """How to choose the underlay's interface: the first of `named` that there is, else the first
    that `pattern` fits, else the one towards an address, else that of the default route.
    """

    named: tuple[str, ...] = ()
    pattern: str = ""
    towards: str = ""
    public: IPv4Address | None = None
    public6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Paths are absolute, times in seconds."""

    cluster: str = DEFAULT_CLUSTER
    prefix: str = PREFIX
    file: str = path_of(DEFAULT_CLUSTER)
    subnet_file: str = ""
    """flannel's `/run/flannel/subnet.env`, for other programs; `""` for none."""
    identity_file: str = f"{IDENTITY_FOLDER}/{DEFAULT_CLUSTER}.node"
    socket: str = f"{FOLDER}/{DEFAULT_CLUSTER}.sock"
    health_address: tuple[str, int] | None = None
    """Where readiness and metrics are told over TCP, too."""
    ttl: int = DEFAULT_TTL
    interfaces: Interfaces = Interfaces()
    subnets: tuple[str, ...] = ()
    """The subnets that this node has to have; none if it may choose."""
    assigned: Callable[[], tuple[str, ...]] | None = None
    """Asks, in a thread, who gives each node its subnets instead. Raises ClaimError."""
    pools: tuple[str, ...] = ()
    """Pools of the plugin `cluster` that this node takes part in."""
    network: bytes = b""
    """The network's configuration, where it is not the store that has it."""
    host: str = field(default_factory=gethostname)
    grace: float = 60.0
    """For how long a peer is kept that is missing from a store whose past is not known."""
    pace: Pace = field(default_factory=Pace)
    joins: bool = True
    """Lease a subnet and lead packets to other nodes; without it there are companions alone."""
    release: bool = False
    """Give the lease back at the end, and take everything down."""
