"""The way of one packet over this host, from namespace to namespace.

Every decision that the kernel can be asked for is asked of it; rules are evaluated here.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, NoReturn

from cni_py.kernel.route_lookup import explained

from . import bridged, hooks
from .report import Ending, Step, Traced, Verdict

if TYPE_CHECKING:
    from cni_py.inventory.model import Attached
    from cni_py.kernel.links import Link
    from cni_py.kernel.route_lookup import Decision
    from cni_py.spec.addresses import IP

    from .ends import End, Spaces
    from .packet import Outcome, Packet
    from .space import Space

# More would be a packet that goes round in circles.
_MOST_HOPS = 12
_ANSWERED_BY = {"forward": "forward", "output": "input", "input": "output"}
_HOST = "host"


class Ended(Exception):  # noqa: N818 - the way has come to its end
    """The packet goes no further; what is known of that is the verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.text)
        self.verdict = verdict


class Walk:
    """One packet, step by step; `trace` follows it."""

    def __init__(self, spaces: Spaces) -> None:
        self.spaces = spaces
        self.steps: list[Step] = []
        self.doubts: list[str] = []
        self._hops = 0
        # Where filters were passed, for the answers meet the same ones.
        self._passed: list[tuple[Space, str, Packet]] = []
        self._translated_on_host = False
        self._masqueraded_on_host = False

    def trace(self, source: End, destination: End, packet: Packet) -> Traced:
        """Follow it to its end. Raises CniError where the kernel does not answer."""
        try:
            if source.space is not None:
                self._send(source.space, packet)
            else:
                self._come_in(packet)
        except Ended as ended:
            verdict = ended.verdict
        for space in self.spaces.opened:
            self.doubts += space.doubts
        if verdict.ending in ("arrives", "leaves") and self.doubts:
            verdict = Verdict(
                ending="uncertain",
                text=f"{verdict.text}, unless what was not understood stops it",
                remedy="cni-py trace --live sends a real packet",
            )
        return Traced(
            source=source.name,
            destination=destination.name,
            packet=str(packet),
            steps=tuple(self.steps),
            verdict=verdict,
            doubts=tuple(dict.fromkeys(self.doubts)),
        )

    # Layer 3.

    def _come_in(self, packet: Packet) -> NoReturn:
        """From a machine outside: through the link that the way back leads through."""
        host = self.spaces.host
        back = host.way_to(packet.source)
        link = host.links.get(back.link)
        if back.kind != "unicast" or link is None:
            text = f"the host has no way back to {packet.source}: {explained(back.kind)}"
            self.stop(_HOST, "route", text, f"ip route add {packet.source} via GATEWAY")
        self.say(host, "link", f"comes in through {link.name}")
        self.receive(host, packet, link)

    def _send(self, space: Space, packet: Packet) -> NoReturn:
        """A packet of the space's own."""
        decision, packet = self._routed(space, packet)
        outcome = self._through(space, "output", packet)
        if outcome.packet.destination != packet.destination or outcome.packet.mark != packet.mark:
            decision, packet = self._routed(space, outcome.packet)
        packet = outcome.packet._replace(oif=packet.oif)
        if decision.kind == "local":
            packet = self._through_postrouting(space, packet, decision)
            back = packet._replace(iif="lo", oif="")
            back = self._through(space, "prerouting", back).packet
            self.deliver(space, self._through(space, "input", back).packet)
        packet = self._through_postrouting(space, packet, decision)
        self._leave(space, packet, decision)

    def receive(self, space: Space, packet: Packet, link: Link) -> NoReturn:
        """A packet that has come in through a link of a space, whose conntrack is another."""
        self._count()
        if not link.up:
            self.stop(space.name, "link", f"{link.name} is down", f"ip link set {link.name} up")
        packet = packet._replace(iif=link.name, oif="", dnat=False, snat=False, mark=0, ct_mark=0)
        packet = self._through(space, "prerouting", packet).packet
        self.after_prerouting(space, packet, link)

    def after_prerouting(self, space: Space, packet: Packet, link: Link) -> NoReturn:
        """The routing decision for what has come in, and what follows from it."""
        decision = space.route(packet, iif=link.ifindex)
        if decision.kind == "local":
            self.say(space, "route", f"{packet.destination} is its own address")
            self.deliver(space, self._through(space, "input", packet).packet)
        self._require_forwarded(space, packet, link, decision)
        packet = packet._replace(oif=self._name(space, decision.link))
        self.say(space, "route", f"to {packet.destination} {self._way(space, decision)}")
        packet = self._through(space, "forward", packet).packet
        packet = self._through_postrouting(space, packet, decision)
        self._leave(space, packet, decision)

    def _require_forwarded(
        self, space: Space, packet: Packet, link: Link, decision: Decision
    ) -> None:
        version = packet.version
        key = f"net/ipv{version}/conf/{link.name if version == 4 else 'all'}/forwarding"
        if decision.kind not in ("martian", "reverse path") and not space.sysctl(key):
            shown = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
            text = f"IPv{version} is not forwarded from {link.name}"
            self.stop(space.name, "route", text, f"sysctl -w {shown}=1")
        if decision.kind != "unicast":
            text = f"{packet.source} -> {packet.destination} from {link.name}: "
            remedy = f"ip route get {packet.destination} from {packet.source} iif {link.name}"
            self.stop(space.name, "route", text + explained(decision.kind), remedy)

    def _routed(self, space: Space, packet: Packet) -> tuple[Decision, Packet]:
        """Where a packet of its own goes, which gets its source by that."""
        decision = space.route(packet)
        if decision.kind not in ("unicast", "local"):
            text = f"there is no route to {packet.destination}: {explained(decision.kind)}"
            remedy = (
                f"give the network a route to it, such as isDefaultGateway; ip -{packet.version} "
            )
            self.stop(space.name, "route", text, f"{remedy}route, in {space.name}")
        if packet.source.is_unspecified and decision.source is not None:
            packet = packet._replace(source=decision.source)
        link = space.links.get(decision.link)
        if decision.kind == "local":
            text = f"{packet.destination} is its own address"
        else:
            text = (
                f"to {packet.destination} {self._way(space, decision)} with source {packet.source}"
            )
        self.say(space, "route", text)
        packet = packet._replace(oif=link.name if link else "", mac=link.mac if link else "")
        return decision, packet

    def _leave(self, space: Space, packet: Packet, decision: Decision) -> NoReturn:
        """Out through a link: to a namespace, a bridge, or the world."""
        self._count()
        link = space.links[decision.link]
        if not link.up:
            self.stop(space.name, "link", f"{link.name} is down", f"ip link set {link.name} up")
        hop = decision.gateway or packet.destination
        self._note_shaping(space, link)
        self._require_neighbour(space, link, hop)
        packet = packet._replace(mac=link.mac, iif="", oif="")
        if space is not self.spaces.host:
            self._out_of_container(space, packet, link, hop)
        if link.kind == "bridge":
            bridged.pass_on(self, packet, bridge=link, port=None, hop=hop)
        attached = self.spaces.behind(link)
        if attached is not None:
            self.enter(packet, attached)
        self._out_of_host(packet, link)

    def _out_of_container(self, space: Space, packet: Packet, link: Link, hop: IP) -> NoReturn:
        host = self.spaces.host
        own = self.spaces.attachment(space, link.name)
        outer = host.links.get(own.host.ifindex) if own is not None and own.host else None
        if link.kind == "veth" and outer is not None:
            if not outer.up:
                self.stop(_HOST, "link", f"{outer.name} is down", f"ip link set {outer.name} up")
            self._note_shaping(host, outer)
            bridge = host.links.get(outer.master)
            if bridge is not None and bridge.kind == "bridge":
                bridged.pass_on(self, packet, bridge=bridge, port=outer, hop=hop)
            self.say(host, "link", f"comes in through {outer.name}")
            self.receive(host, packet, outer)
        parent = own.inside.parent if own is not None and own.inside is not None else ""
        if parent:
            self._through_parent(packet, link, parent, hop)
        text = f"leaves {space.name} through {link.name}, whose other side cannot be seen"
        self.end("leaves", space.name, "link", text)

    def _through_parent(self, packet: Packet, link: Link, parent: str, hop: IP) -> None:
        """macvlan and ipvlan: the host's own addresses cannot be reached (plugins.md 4.4)."""
        if link.kind in ("macvlan", "ipvlan") and self.spaces.host.owns(hop):
            text = f"{link.kind} keeps containers from the host's own address {hop} on {parent}"
            remedy = "use another address, or a bridge: what a parent sends itself it does not see"
            self.stop(_HOST, "link", text, remedy)
        for one in self.spaces.attachments:
            same = one.inside is not None and one.inside.parent == parent
            if same and str(hop) in (each.partition("/")[0] for each in one.addresses):
                self.say(self.spaces.host, "link", f"goes over {parent} to {one.container_id}")
                self.enter(packet, one)
        self.end("leaves", _HOST, "link", f"leaves the host through {parent}")

    def enter(self, packet: Packet, attached: Attached) -> NoReturn:
        """Into a container."""
        space = self.spaces.inside(attached)
        inside = None if space is None else space.link(attached.ifname)
        if space is None or inside is None:
            text = f"{attached.container_id} has no {attached.ifname} that could be looked at"
            text += f" ({attached.why or attached.state})"
            self.stop(attached.container_id, "link", text, "the container is gone: cni-py gc")
        self.say(space, "link", f"comes in through {inside.name}")
        self.receive(space, packet, inside)

    def _out_of_host(self, packet: Packet, link: Link) -> NoReturn:
        if not packet.snat and any(
            str(packet.source) in (each.partition("/")[0] for each in one.addresses)
            for one in self.spaces.attachments
        ):
            text = f"it keeps its source {packet.source}: whoever answers needs a route back to it"
            self.say(self.spaces.host, "masquerade", f"{text} (ipMasq)", effect="note")
        self._require_answers()
        self.end("leaves", _HOST, "link", f"leaves the host through {link.name}")

    # The end of the way, and the way back.

    def deliver(self, space: Space, packet: Packet) -> NoReturn:
        """It is at its destination: does somebody take it, and does the answer come back?"""
        self._require_answer_route(space, packet)
        self._require_answers()
        where = f"{packet.destination}:{packet.dport}" if packet.has_ports else packet.destination
        if packet.protocol in ("tcp", "udp"):
            is_taken = any(
                one.takes(packet.protocol, packet.destination, packet.dport)
                for one in space.listeners
            )
            if not is_taken:
                text = f"nobody listens on {packet.protocol} {where} in {space.name}"
                self.end("refused", space.name, "socket", text, "start the server, or look at "
                    "which address it listens on: ss -tlnp")  # fmt: skip
            self.say(space, "socket", f"somebody listens on {packet.protocol} {where}")
        elif packet.protocol == "sctp":
            self.say(space, "socket", "who listens for sctp is not looked at", effect="note")
        self.end("arrives", space.name, "socket", f"arrives in {space.name}")

    def _require_answer_route(self, space: Space, packet: Packet) -> None:
        if space.owns(packet.source):
            return
        back = space.way_to(packet.source, packet.destination)
        if back.kind != "unicast":
            text = f"{space.name} has no way back to {packet.source}: {explained(back.kind)}"
            self.stop(space.name, "return", text, "give the network a default route: "
                '"isDefaultGateway": true, or routes in ipam')  # fmt: skip
        on_link = back.gateway is None and not self.spaces.host.owns(packet.source)
        if space is not self.spaces.host and on_link and self._is_astray():
            text = f"{space.name} answers {packet.source} straight over the bridge, so that the "
            text += "answer has another source than what was asked"
            self.stop(space.name, "return", text, "masquerade what comes back to its own network: "
                'portmap with "snat": true')  # fmt: skip
        self.say(space, "return", f"answers {packet.source} {self._way(space, back)}")

    def _is_astray(self) -> bool:
        return self._translated_on_host and not self._masqueraded_on_host

    def _require_answers(self) -> None:
        """The filters that were passed, once more by the answer."""
        for space, hook, packet in reversed(self._passed):
            outcome = hooks.through(space, _ANSWERED_BY[hook], packet.answer())
            self._told(space, f"{_ANSWERED_BY[hook]} of the answer", outcome, quiet=True)

    # Hooks.

    def _through(self, space: Space, hook: str, packet: Packet) -> Outcome:
        outcome = hooks.through(space, hook, packet)
        if hook in _ANSWERED_BY:
            self._passed.append((space, hook, packet))
        if space is self.spaces.host and outcome.packet.dnat and not packet.dnat:
            self._translated_on_host = True
        self._told(space, hook, outcome)
        return outcome

    def bridge_through(self, hook: str, packet: Packet) -> None:
        """A frame through nftables' chains of the family bridge."""
        outcome = hooks.through_bridge(self.spaces.host, hook, packet)
        self._told(self.spaces.host, f"bridge {hook}", outcome)

    def ip_through(self, hook: str, packet: Packet) -> Packet:
        """A frame that br_netfilter has pass the rules of IP."""
        return self._through(self.spaces.host, hook, packet).packet

    def _through_postrouting(self, space: Space, packet: Packet, decision: Decision) -> Packet:
        changed = self._through(space, "postrouting", packet).packet
        if not changed.snat or packet.snat:
            return changed
        if space is self.spaces.host:
            self._masqueraded_on_host = True
        if changed.source != packet.source:
            return changed
        hop = decision.gateway or packet.destination
        preferred = space.way_to(hop).source
        own = [one.address.ip for one in space.addresses.get(decision.link, ())]
        alike = (one for one in own if one.version == packet.version)
        source = preferred or next(alike, packet.source)
        self.say(space, "postrouting", f"its source is {source} from here on")
        return changed._replace(source=ip_address(str(source)))

    def _told(self, space: Space, hook: str, outcome: Outcome, *, quiet: bool = False) -> None:
        for event in outcome.events:
            if event.effect == "uncertain":
                self.doubts.append(f"{event.where}: {event.text} ({event.rule})")
            if quiet and event.effect == "pass":
                continue
            self.steps.append(
                Step(
                    place=space.name,
                    what=hook,
                    text=event.text,
                    effect=event.effect,
                    where=event.where,
                    rule=event.rule,
                )
            )
        if not outcome.passes:
            last = outcome.events[-1]
            ending: Ending = "rejected" if outcome.verdict == "reject" else "dropped"
            which = "answer" if quiet else "packet"
            text = f"{space.name}: {last.where} {'rejects' if ending == 'rejected' else 'drops'} "
            raise Ended(
                Verdict(
                    ending=ending,
                    text=f"{text}the {which}",
                    where=last.where,
                    rule=last.rule,
                    remedy=_accepting(last.where, last.rule, outcome.packet),
                )
            )

    # Small things.

    def _count(self) -> None:
        self._hops += 1
        if self._hops > _MOST_HOPS:
            self.stop(_HOST, "route", "it goes round in circles", "ip route; ip rule")

    def _require_neighbour(self, space: Space, link: Link, hop: IP) -> None:
        for one in space.neighbours:
            if (one.link, one.address, one.state) == (link.ifindex, hop, "failed"):
                text = f"nobody has answered for {hop} on {link.name} (neighbour failed)"
                self.say(space, "neighbour", text, effect="note")

    def _note_shaping(self, space: Space, link: Link) -> None:
        kinds = [one.kind for one in space.qdiscs.get(link.ifindex, ())]
        slow = sorted({"tbf", "htb", "netem"}.intersection(kinds))
        if slow:
            text = (
                f"{link.name} is shaped ({', '.join(slow)}): it may wait, or be dropped in a rush"
            )
            self.say(space, "shaping", text, effect="note")

    def _way(self, space: Space, decision: Decision) -> str:
        via = f"via {decision.gateway} " if decision.gateway is not None else ""
        table = f" (table {decision.table})" if decision.table not in (0, 254, 255) else ""
        return f"{via}dev {self._name(space, decision.link)}{table}"

    def _name(self, space: Space, index: int) -> str:
        link = space.links.get(index)
        return link.name if link is not None else f"link {index}"

    def say(self, space: Space, what: str, text: str, *, effect: str = "pass") -> None:
        """Note a step."""
        self.steps.append(Step(place=space.name, what=what, text=text, effect=effect))

    def stop(self, place: str, what: str, text: str, remedy: str) -> NoReturn:
        """It is stuck here. Raises Ended."""
        self.end("stuck", place, what, text, remedy)

    def end(self, ending: Ending, place: str, what: str, text: str, remedy: str = "") -> NoReturn:
        """The way ends. Raises Ended."""
        effect = "pass" if ending in ("arrives", "leaves") else "stop"
        self.steps.append(Step(place=place, what=what, text=text, effect=effect))
        raise Ended(Verdict(ending=ending, text=text, where=place, remedy=remedy))


def _accepting(where: str, rule: str, packet: Packet) -> str:
    """The command that lets such packets pass before the rule is met."""
    if "cni_py" in where or "CNI-ISOLATION" in where:
        return 'the firewall plugin\'s "ingressPolicy" keeps them apart: "open" lets them meet'
    source, destination, family = packet.source, packet.destination, packet.family
    if where.startswith(("iptables ", "ip6tables ")):
        program, table, chain = where.split()
        return f"{program} -t {table} -I {chain} -s {source} -d {destination} -j ACCEPT"
    chain = where.partition(" handle ")[0]
    accept = f"nft insert rule {chain} {family} saddr {source} {family} daddr {destination} accept"
    return accept if rule.startswith("policy") else f"{accept}  # or: nft -a list chain {chain}"
