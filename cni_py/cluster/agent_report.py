"""What the agent tells of itself: for people, for Prometheus, for the plugins' file."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cni_py import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator


class Problem(NamedTuple):
    """What is wrong, as STATUS tells it: a CNI error's code (0 for nothing), text and details."""

    code: int = 0
    msg: str = ""
    details: str = ""


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A peer: its subnets, at which addresses it is reached, and why not, if it is refused."""

    subnets: str
    addresses: str = ""
    refused: str = ""


class LeaseStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The node's lease. `seconds_left` is for how long the store has it for sure."""

    holding: str = "none"
    number: str = ""
    seconds_left: float = 0.0
    problem: str = ""


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The store: how many seconds ago it last answered or told something, None if it never has."""

    contact_age: float | None = None
    problem: str = ""
    revision: int = 0


class Gauge(msgspec.Struct, frozen=True, kw_only=True):
    """A number of a companion's: the metric's name behind `cni_py_agent_`, and what it counts."""

    name: str
    text: str
    value: int


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The whole of it. `ready`: containers of this node reach those of others, and will."""

    version: str = __version__
    cluster: str
    host: str
    node: str
    ready: bool
    problem: str = ""
    backend: str = ""
    interface: str = ""
    networks: str = ""
    subnets: str = ""
    addresses: str = ""
    former: tuple[str, ...] = ()
    mtu: int = 0
    lease: LeaseStatus = LeaseStatus()
    store: StoreStatus = StoreStatus()
    peers: tuple[PeerStatus, ...] = ()
    joins: bool = True
    """Whether there is to be a subnet at all."""
    companions: dict[str, str] = {}
    """What else the agent does, and how that goes."""
    gauges: tuple[Gauge, ...] = ()
    """The same in numbers."""
    missing: tuple[str, ...] = ()
    """Records that the store has lost, and that are believed for a short time yet."""


class Counters:
    """What has happened since the agent began, by name."""

    HELP = (
        ("claims", "Subnets that were claimed, again or anew."),
        ("leases_lost", "Leases that the store had no more, or gave to somebody else."),
        ("lists", "Times that all records were read, not just changes."),
        ("rounds", "Comparisons of what is wanted with what is there."),
        ("round_failures", "Comparisons after which not all was as it should be."),
        ("changes", "Steps that comparisons have led to."),
        ("duplicates", "Other nodes with this one's address or subnet that have asked for it."),
    )

    def __init__(self) -> None:
        self._values: dict[str, int] = defaultdict(int)

    def add(self, name: str, number: int = 1) -> None:
        """So many more."""
        self._values[name] += number

    def get(self, name: str) -> int:
        """How many there are."""
        return self._values[name]


def metrics(status: AgentStatus, counters: Counters) -> str:
    """Prometheus' text (exposition format 0.0.4)."""
    return "\n".join((*_lines(status, counters), ""))


def _lines(status: AgentStatus, counters: Counters) -> Iterator[str]:
    yield "# HELP cni_py_agent_info The agent's version and backend."
    yield "# TYPE cni_py_agent_info gauge"
    yield f'cni_py_agent_info{{version="{status.version}",backend="{status.backend}"}} 1'
    for name, text in counters.HELP:
        yield f"# HELP cni_py_agent_{name}_total {text}"
        yield f"# TYPE cni_py_agent_{name}_total counter"
        yield f"cni_py_agent_{name}_total {counters.get(name)}"
    refused = sum(1 for one in status.peers if one.refused)
    age = status.store.contact_age
    gauges = (
        ("ready", "Whether containers of this node reach those of others.", int(status.ready)),
        ("lease_held", "Whether the lease is held.", int(status.lease.holding == "held")),
        ("lease_seconds", "For how long it is held for sure.", round(status.lease.seconds_left, 3)),
        ("peers", "Peers that are believed.", len(status.peers) - refused),
        ("peers_refused", "Records of peers that are not believed.", refused),
        ("peers_missing", "Peers that the store has lost.", len(status.missing)),
        ("store_contact_seconds", "Since the store last answered.", "NaN" if age is None else age),
        ("store_revision", "The store's revision that is known.", status.store.revision),
        ("mtu_bytes", "What a container's packet may have.", status.mtu),
        *((one.name, one.text, one.value) for one in status.gauges),
    )
    for name, text, value in gauges:
        yield f"# HELP cni_py_agent_{name} {text}"
        yield f"# TYPE cni_py_agent_{name} gauge"
        yield f"cni_py_agent_{name} {value}"
