"""What a backend is: it makes this node's containers and those of the other nodes reach each other.

docs/backends.md tells how to write one; `tests/cluster/backend_battery.py` holds each to this
contract. A backend is synchronous and belongs to one thread at a time: the agent calls it from a
thread of its own, never twice at once. Each method can be called again at any time, after a
failure too, and by a process that knows nothing of what an earlier one did.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cni_py.spec.errors import CniError, cni_error_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from cni_py.kernel.changes import Change as KernelChange


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a node says of itself in its lease, beside its subnets (flannel's lease value).

    `backend` is the BackendType. `data` and `data6` are the JSON objects BackendData and
    BackendV6Data, None where the backend says nothing for the family; of a peer they can be any
    JSON value, so that a backend checks them.
    """

    backend: str
    address: IPv4Address | None = None
    address6: IPv6Address | None = None
    data: Any = None
    data6: Any = None


@dataclass(frozen=True, slots=True)
class Node:
    """A node as its lease says; None for the family that the cluster's network does not have."""

    said: Announcement
    subnet: IPv4Network | None = None
    subnet6: IPv6Network | None = None

    @property
    def name(self) -> str:
        """Its subnets, by which messages and reports call it."""
        subnets = [str(one) for one in (self.subnet, self.subnet6) if one is not None]
        return " and ".join(subnets) or "a node without a subnet"


@dataclass(frozen=True, slots=True)
class View:
    """What the cluster looks like from this node.

    `networks` are the cluster's networks, at most one a family. `peers` are the other nodes, those
    whose lease is older first: of two that claim the same, the first is believed.
    """

    own: Node
    peers: Sequence[Node] = ()
    network: IPv4Network | None = None
    network6: IPv6Network | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the world: what it does in words, and how. `run` raises CniError or OSError."""

    what: str
    run: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in this order, and which peers (`Node.name`) are ignored, and why.

    The order keeps what works working: what is missing comes before what is too much, and what
    changes is replaced, not removed and made again.
    """

    steps: Sequence[Step] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What `reconcile` has done: the steps that were carried out, those that failed, and why.

    `refused` is the plan's.
    """

    done: Sequence[str] = ()
    failed: Sequence[CniError] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


class Backend(ABC):
    """One way between nodes. It is made anew for other settings; `close` lets go of resources."""

    # The BackendType in leases, and `Backend.Type` in the network's configuration.
    name: ClassVar[str]

    @abstractmethod
    def announce(self) -> Announcement:
        """What the lease has to say of this node. The first call, before there is a lease.

        It may make what it speaks of, such as a key. As long as the node's addresses and the
        settings stay, also over a restart, it answers the same: others rely on it. Another answer
        later means that the lease has to be written anew. Raises CniError 50 with what is missing.
        """

    @abstractmethod
    def plan(self, view: View) -> Plan:
        """Look at what is there, and tell how to get to what the view asks for; change nothing.

        What is wanted follows from the view and the settings alone, by pure functions. Where all is
        as it should be there are no steps. What this backend or another type on this node made
        earlier and is not wanted any more is taken away; what others made is never touched, even
        where it is in the way: the peer is refused then. A peer with another backend, an address or
        data that cannot be, or a claim that an older peer has, is refused with a reason, and harms
        no other peer. Raises CniError when the look fails.
        """

    @abstractmethod
    def mtu(self) -> int:
        """The bytes that a container's packet may have to reach every peer unfragmented.

        It is asked for after `announce`, and again at each reconciliation, for it follows the
        underlay's. Raises CniError.
        """

    def health(self) -> CniError | None:
        """What else keeps containers from those of peers, for STATUS; None if nothing does.

        50 if no new container would reach a peer, 51 if some peers are not reached. It is asked for
        after a comparison in which no step failed. Raises CniError.
        """
        return None

    @abstractmethod
    def tear_down(self) -> Report:
        """Take away all that this type has made on this node or for it, by any process; idempotent.

        The lease is given up, or another type takes over. What makes the announcement the same
        again, such as a key, may stay.
        """

    def concerns(self, change: KernelChange) -> bool:
        """Whether a change in the kernel is a reason to reconcile before its time.

        It is asked once about each. The one method that is also called while another one runs, from
        another thread.
        """
        del change
        return False

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of sockets and connections; what was made stays."""

    def reconcile(self, view: View) -> Report:
        """Plan and carry it out. Raises CniError when the look fails; a step's failure is told."""
        plan = self.plan(view)
        return self.carried_out(plan)

    def follow(self, before: View, after: View) -> Report | None:
        """Reconcile from one view to the next without a look, if that can be; else None.

        It is called where the last reconciliation, of `before`, left nothing to be done, and the
        kernel has reported nothing since that `concerns` the backend. In a large cluster one peer's
        change costs little so; a whole comparison comes from time to time all the same.
        """
        del before, after
        return None

    def carried_out(self, plan: Plan) -> Report:
        """Run the steps, also after one that failed. The same failure is told once."""
        done: list[str] = []
        failed: dict[str, CniError] = {}
        for step in plan.steps:
            try:
                step.run()
            except (CniError, OSError) as caught:
                error = cni_error_of(caught)
                failed.setdefault(str(error), error)
            else:
                done.append(step.what)
        return Report(done, list(failed.values()), plan.refused)
