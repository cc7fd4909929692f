"""The packet that is followed, and what happens to it; values alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from cni_py.spec.addresses import IP

Hook = Literal["prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"]
# pass: it goes on. stop: it ends here. uncertain: it may end here. note: worth knowing.
Effect = Literal["pass", "stop", "uncertain", "note"]


# Linux gives ports from 32768 on (net.ipv4.ip_local_port_range): rules mean all of them, or none.
EPHEMERAL_PORT = 45000


class Packet(NamedTuple):
    """A packet at one place of its way.

    `protocol` is tcp, udp, sctp, icmp or icmpv6; ports are 0 where it has none. `iif` and `oif` are
    names, `""` where there is none yet. `dnat` and `snat` tell what conntrack was told to do with
    its connection, of which it is the first packet (`state` is new) or an answer (established).
    `mac` is its sender's on the link.
    """

    source: IP
    destination: IP
    protocol: str
    sport: int = 0
    dport: int = 0
    iif: str = ""
    oif: str = ""
    mark: int = 0
    ct_mark: int = 0
    dnat: bool = False
    snat: bool = False
    state: str = "new"
    mac: str = ""

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.destination.version

    @property
    def family(self) -> str:
        """`ip` or `ip6`, as nft(8) calls it."""
        return "ip" if self.version == 4 else "ip6"

    def answer(self) -> Packet:
        """The packet that comes back to where this one is, on the way that it came."""
        return self._replace(
            source=self.destination,
            destination=self.source,
            sport=self.dport,
            dport=self.sport,
            iif=self.oif,
            oif=self.iif,
            state="established",
            mac="",
        )

    @property
    def has_ports(self) -> bool:
        """Whether its protocol has ports."""
        return self.protocol in ("tcp", "udp", "sctp")

    def __str__(self) -> str:
        def end(address: IP, port: int) -> str:
            if not self.has_ports or not port:
                return str(address)
            return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"

        there = end(self.destination, self.dport)
        # The kernel gives it a source when it knows the way.
        here = "" if self.source.is_unspecified else f" {self.source}"
        return f"{self.protocol}{here} -> {there}"


class Event(NamedTuple):
    """What one rule did, or what is not known of it.

    `rule` is its text, `where` the chain with the rule's handle.
    """

    effect: Effect
    where: str
    rule: str
    text: str


class Outcome(NamedTuple):
    """What a hook's chains made of a packet: `accept`, `drop` or `reject`."""

    verdict: str
    packet: Packet
    events: tuple[Event, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether the packet goes on."""
        return self.verdict == "accept"
