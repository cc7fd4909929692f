"""What the agent knows at a moment, and how it tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from cni_py.kernel.boot_clock import now
from cni_py.spec.errors import Code

from .agent_report import AgentStatus, LeaseStatus, PeerStatus, Problem, StoreStatus
from .keeping import Holding
from .node_file import NodeFile

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from .agent_backend import Choice
    from .agent_settings import AgentSettings
    from .flannel import NodeLease, Subnets
    from .flannel_network import Network
    from .keeping import Kept
    from .owner import Owner
    from .reconciler import Round

_START = Problem(Code.PLUGIN_NOT_AVAILABLE, "this node has no subnet of the cluster's network yet")


class AgentState:
    """Everything of it is set by the agent's tasks, in one event loop."""

    def __init__(self, settings: AgentSettings, owner: Owner) -> None:
        self.settings, self.owner = settings, owner
        self.waiting = _START
        """Why there is no subnet yet."""
        self.waits_for_store = True
        self.inherited: NodeFile | None = None
        """What an earlier agent has told the plugins: it is true until the contrary is heard."""
        self.network: Network | None = None
        self.choice: Choice | None = None
        self.own: NodeLease | None = None
        """What the node has claimed last, also after that was lost."""
        self.kept: Kept | None = None
        self.loss = ""
        """Why the lease is lost; `""` where it is not."""
        self.former: tuple[str, ...] = ()
        self.mtu = 0
        self.round: Round | None = None
        self.peers: tuple[NodeLease, ...] = ()
        self.refused: dict[str, str] = {}
        self.missing: tuple[str, ...] = ()
        self.contact: float | None = None
        self.store_problem = ""
        self.revision = 0
        self.releasing = settings.release

    def heard(self) -> None:
        """The store has answered, or told something."""
        self.contact, self.store_problem = now(), ""

    def waits(self, msg: str, details: str = "", *, for_store: bool = False) -> None:
        """There is no subnet yet, for this reason, which is or is not that the store is away."""
        self.waiting = Problem(Code.PLUGIN_NOT_AVAILABLE, msg, details)
        self.waits_for_store = for_store

    @property
    def holding(self) -> Holding:
        """Whether the lease is held."""
        return Holding.LOST if self.kept is None or self.loss else self.kept.holding

    def problem(self) -> Problem:
        """What STATUS has to say."""
        if not self.settings.joins:
            return Problem()
        if self.own is None:
            return self.waiting
        subnets = str(self.own.subnets)
        if self.holding == Holding.LOST:
            msg = f"the lease of this node's subnet {subnets} is lost"
            return Problem(Code.PLUGIN_NOT_AVAILABLE, msg, self.loss or "it is claimed again")
        if self.holding == Holding.UNSURE:
            msg = f"the lease of this node's subnet {subnets} was not renewed in time"
            assert self.kept is not None
            return Problem(Code.PLUGIN_NOT_AVAILABLE, msg, self.kept.problem)
        if self.round is None:
            return Problem(Code.PLUGIN_NOT_AVAILABLE, "the ways to other nodes are not made yet")
        if self.round.error is not None:
            error = self.round.error
            return Problem(Code.PLUGIN_NOT_AVAILABLE, error.msg, error.details)
        if self.round.report.failed:
            first = self.round.report.failed[0]
            msg = f"not all other nodes are reached: {len(self.round.report.failed)} steps failed"
            return Problem(Code.LIMITED_CONNECTIVITY, msg, f"the first one: {first}")
        if (health := self.round.health) is not None:
            return Problem(health.code, health.msg, health.details)
        return Problem()

    def node_file(self) -> NodeFile:
        """What the plugins are told."""
        problem = self.problem()
        if self.own is None and self.inherited is not None:
            if self.waits_for_store:
                return self.inherited
            told = {"code": int(problem.code), "msg": problem.msg, "details": problem.details}
            return replace(self.inherited, **told)
        v4, v6 = self._networks()
        own = self.own
        subnets = None if own is None else own.subnets
        left = 0.0 if self.kept is None else self.kept.seconds_left
        return NodeFile(
            cluster=self.settings.cluster,
            backend="" if self.network is None else self.network.backend_type,
            ipv4_network=_text(v4),
            ipv6_network=_text(v6),
            ipv4_subnet=_text(subnets and subnets.v4),
            ipv6_subnet=_text(subnets and subnets.v6),
            public_ip=_text(own and own.public_ip),
            public_ipv6=_text(own and own.public_ipv6),
            mtu=self.mtu,
            lease=self.holding.value,
            lease_number=0 if self.kept is None else self.kept.lease,
            held_until=round(now() + left) if left else 0.0,
            former=self.former,
            code=problem.code,
            msg=problem.msg,
            details=problem.details,
        )

    def subnet_environment(self) -> str:
        """flannel's subnet.env. The agent has no masquerading of its own: the plugin masquerades.

        As flannel does, a subnet is given with its first address.
        """
        assert self.own is not None
        v4, v6 = self._networks()
        lines = []
        for prefix, network, subnet in (
            ("FLANNEL_", v4, self.own.subnets.v4),
            ("FLANNEL_IPV6_", v6, self.own.subnets.v6),
        ):
            if network is not None and subnet is not None:
                lines.append(f"{prefix}NETWORK={network}")
                lines.append(f"{prefix}SUBNET={subnet.network_address + 1}/{subnet.prefixlen}")
        lines += [f"FLANNEL_MTU={self.mtu}", "FLANNEL_IPMASQ=false"]
        return "\n".join((*lines, ""))

    def status(self) -> AgentStatus:
        """For `cni-py agent status`, metrics and readiness."""
        problem = self.problem()
        own, kept = self.own, self.kept
        text = f"{problem.msg}; {problem.details}" if problem.details else problem.msg
        age = None if self.contact is None else round(now() - self.contact, 3)
        return AgentStatus(
            cluster=self.settings.cluster,
            host=self.owner.host,
            node=self.owner.node,
            joins=self.settings.joins,
            ready=problem.code == 0,
            problem=text,
            backend="" if self.network is None else self.network.backend_type,
            interface=f"{self.choice.link}: {self.choice.why}" if self.choice else "",
            networks=" and ".join(str(one) for one in self._networks() if one),
            subnets="" if own is None else str(own.subnets),
            addresses="" if own is None else _addresses(own),
            former=self.former,
            mtu=self.mtu,
            lease=LeaseStatus(
                holding="none" if own is None else self.holding.value,
                number="" if kept is None else f"{kept.lease:x}",
                seconds_left=0.0 if kept is None else round(kept.seconds_left, 3),
                problem=self.loss or ("" if kept is None else kept.problem),
            ),
            store=StoreStatus(contact_age=age, problem=self.store_problem, revision=self.revision),
            peers=self._peer_statuses(),
            missing=self.missing,
        )

    def _peer_statuses(self) -> tuple[PeerStatus, ...]:
        report = {} if self.round is None else dict(self.round.report.refused)
        peers = [
            PeerStatus(
                subnets=str(one.subnets),
                addresses=_addresses(one),
                refused=report.pop(str(one.subnets), ""),
            )
            for one in self.peers
        ]
        rest = {**self.refused, **report}
        return (*peers, *(PeerStatus(subnets=key, refused=why) for key, why in rest.items()))

    def all_refused(self) -> dict[str, str]:
        """Records and peers that are not believed or not reached, and why."""
        return self.refused | ({} if self.round is None else dict(self.round.report.refused))

    def _networks(self) -> tuple[IPv4Network | None, IPv6Network | None]:
        found = self.network
        if found is None:
            return None, None
        return (found.v4.network if found.v4 else None), (found.v6.network if found.v6 else None)

    def has_left(self, subnets: Subnets) -> None:
        """The node has had these, and has others now."""
        if str(subnets) not in self.former:
            self.former = (*self.former, str(subnets))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _addresses(lease: NodeLease) -> str:
    return " and ".join(str(one) for one in (lease.public_ip, lease.public_ipv6) if one)
