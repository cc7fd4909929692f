"""The DHCP client's states (RFC 2131, 4.4), without a clock, a socket or an interface of its own.

Every method is told the time, in seconds of a clock that only grows, and returns what is to be
done. `deadline` says when `advance` is due.
"""

from __future__ import annotations

import math
import random
from enum import Enum
from ipaddress import IPv4Address
from typing import NamedTuple

from cni_py.kernel.dhcp_messages import (
    ANY,
    BOOTREPLY,
    BOOTREQUEST,
    BROADCAST,
    BROADCAST_FLAG,
    Message,
)
from cni_py.kernel.dhcp_socket import BROADCAST_MAC

from . import options
from .lease import Lease, lease_of

DISCOVER, OFFER, REQUEST, ACK, NAK, RELEASE = 1, 2, 3, 5, 6, 7

_FIRST_DELAY_SECONDS = 1.0
_JITTER = 0.1
_MOST_DOUBLINGS = 16
# RFC 2131, 4.4.5: half of what is left, but not less than a minute; less for a short lease.
_LEAST_RENEWAL_SECONDS = 60.0
_LEAST_RENEWAL_PART = 1 / 16


class State(Enum):
    """What the client waits for."""

    IDLE = "idle"
    SELECTING = "selecting"
    REQUESTING = "requesting"
    REBOOTING = "rebooting"
    BOUND = "bound"
    RENEWING = "renewing"
    REBINDING = "rebinding"


class Terms(NamedTuple):
    """The daemon's settings, in seconds.

    `timeout`: how long one request is waited for. `resend_max`: the longest pause between two
    messages of one kind. `resend_timeout`: how long an ADD may take. `broadcast` asks servers to
    answer by broadcast.
    """

    timeout: float = 10.0
    resend_max: float = 62.0
    resend_timeout: float = 208.0
    broadcast: bool = False


class Identity(NamedTuple):
    """Who asks: the hardware address, and the options that go with every DISCOVER and REQUEST."""

    mac: bytes
    options: dict[int, bytes]


class Send(NamedTuple):
    """Send a message: IPv4 source and destination, and the hardware address that it goes to."""

    message: Message
    source: IPv4Address = ANY
    destination: IPv4Address = BROADCAST
    mac: bytes = BROADCAST_MAC


class Bound(NamedTuple):
    """The lease holds: a new one, or one that was renewed."""

    lease: Lease


class Lost(NamedTuple):
    """The address may not be used any more; the client goes on asking for one."""

    lease: Lease
    reason: str


Action = Send | Bound | Lost


class Client:
    """One lease's client. `trouble` is what went wrong last, for an error's details."""

    def __init__(self, identity: Identity, terms: Terms, draw: random.Random | None = None) -> None:
        self.state = State.IDLE
        self.lease: Lease | None = None
        self.deadline = math.inf
        self.trouble = ""
        self._identity = identity
        self._terms = terms
        self._draw = draw or random.SystemRandom()
        self._xid = 0
        self._begun = self._entered = self._sent = 0.0
        self._tries = self._refusals = 0
        self._offer: Message | None = None
        self._wanted: IPv4Address | None = None

    def begin(self, now: float) -> list[Action]:
        """Ask whoever is there for an address; for that of `lease` if there was one."""
        if self.lease is not None:
            self._wanted = self.lease.ip
            self.lease = None
        self._begun = now
        self.trouble = self.trouble or "no server has answered"
        self._enter(State.SELECTING, now)
        return self._say(now)

    def resume(self, lease: Lease, now: float) -> list[Action]:
        """Go on with a lease of an earlier run: ask whether it still holds (INIT-REBOOT)."""
        self.lease = lease
        if lease.is_over(now):
            return self._lose("it expired", now)
        self._begun = now
        self._enter(State.REBOOTING, now)
        return self._say(now)

    def release(self) -> Send | None:
        """Give the lease back: the message, None where there is none to give."""
        lease, self.lease = self.lease, None
        self.state, self.deadline = State.IDLE, math.inf
        if lease is None or not lease.server:
            return None
        own = self._identity.options
        given = {options.MESSAGE_TYPE: bytes((RELEASE,))}
        given[options.SERVER_ID] = IPv4Address(lease.server).packed
        if options.CLIENT_ID in own:
            given[options.CLIENT_ID] = own[options.CLIENT_ID]
        xid = self._draw.getrandbits(32)
        message = Message(BOOTREQUEST, xid, self._identity.mac, given, ciaddr=lease.ip)
        return Send(message, lease.ip, IPv4Address(lease.server), lease.server_mac)

    def advance(self, now: float) -> list[Action]:
        """What is due at `now`."""
        if now < self.deadline:
            return []
        if self.state in (State.BOUND, State.RENEWING, State.REBINDING):
            return self._maintain(now)
        if now >= self._entered + self._terms.timeout:
            if self.state is State.REBOOTING:
                # Nobody answers: the lease holds as long as it was given for.
                return self._maintain(now)
            if self.state is State.REQUESTING:
                self.trouble = f"{self._server()} did not answer the request for its offer"
                self._enter(State.SELECTING, now)
        return self._say(now)

    def hear(self, message: Message, mac: bytes, now: float) -> list[Action]:
        """Take a message that came from the hardware address `mac`."""
        mine = (BOOTREPLY, self._xid, self._identity.mac)
        if (message.op, message.xid, message.chaddr) != mine:
            return []
        if message.type == OFFER and self.state is State.SELECTING:
            return self._choose(message, now)
        waits = (State.REQUESTING, State.REBOOTING, State.RENEWING, State.REBINDING)
        if self.state not in waits or not self._is_chosen(message):
            return []
        if message.type == ACK and not message.yiaddr.is_unspecified:
            return self._bind(message, mac, now)
        if message.type == NAK:
            return self._refused(message, now)
        return []

    # What happens.

    def _choose(self, offer: Message, now: float) -> list[Action]:
        if not options.addresses(offer.options, options.SERVER_ID):
            self.trouble = "a server's offer does not name the server"
            return []
        if offer.yiaddr.is_unspecified:
            return []
        self._offer = offer
        self._enter(State.REQUESTING, now, xid=offer.xid)
        return self._say(now)

    def _is_chosen(self, message: Message) -> bool:
        """Whether the answer is from the server whose offer was taken, or there was none."""
        if self.state is not State.REQUESTING or self._offer is None:
            return True
        server = options.addresses(message.options, options.SERVER_ID)
        return server == options.addresses(self._offer.options, options.SERVER_ID)

    def _bind(self, ack: Message, mac: bytes, now: float) -> list[Action]:
        given = dict(ack.options)
        if self.lease is not None:
            # What a renewal need not repeat.
            for code in (options.SUBNET_MASK, options.SERVER_ID):
                if code in self.lease.options:
                    given.setdefault(code, self.lease.options[code])
        self.lease = lease_of(ack.yiaddr, given, mac, self._sent)
        self._wanted, self._offer, self._refusals, self.trouble = None, None, 0, ""
        self.state = State.BOUND
        self.deadline = max(now, self.lease.since + self.lease.renew)
        return [Bound(self.lease)]

    def _refused(self, nak: Message, now: float) -> list[Action]:
        """The first time ask at once; after that wait longer each time."""
        server = options.addresses(nak.options, options.SERVER_ID)
        name = f"the server {server[0]}" if server else "a server"
        text = options.text(nak.options, options.ERROR_TEXT)
        self.trouble = f"{name} refused" + (f": {text}" if text.isprintable() and text else "")
        self._offer = None
        if self.lease is not None:
            return self._lose(self.trouble, now)
        self._wanted = None
        self._enter(State.SELECTING, now)
        self._refusals += 1
        if self._refusals == 1:
            return self._say(now)
        self.deadline = now + self._delay(self._refusals - 2)
        return []

    def _lose(self, reason: str, now: float) -> list[Action]:
        assert self.lease is not None
        self.trouble = reason
        lost = Lost(self.lease, reason)
        return [lost, *self.begin(now)]

    def _maintain(self, now: float) -> list[Action]:
        """Where a lease is in its life, and what that asks for."""
        assert self.lease is not None
        lease = self.lease
        if now >= lease.since + lease.expire:
            return self._lose("it expired", now)
        if now < lease.since + lease.renew:
            self.state, self.deadline = State.BOUND, lease.since + lease.renew
            return []
        is_late = now >= lease.since + lease.rebind
        state = State.REBINDING if is_late or not lease.server else State.RENEWING
        if self.state is not state:
            self._begun = now
            self._enter(state, now)
        return self._say(now)

    # Messages.

    def _enter(self, state: State, now: float, xid: int | None = None) -> None:
        self.state = state
        self._entered, self._tries = now, 0
        self._xid = self._draw.getrandbits(32) if xid is None else xid

    def _say(self, now: float) -> list[Action]:
        """The message of the state, and when it is due again."""
        self._sent = now
        # A pause can be too short for the number to change.
        self.deadline = max(now + self._pause(now), math.nextafter(now, math.inf))
        if self.state in (State.REQUESTING, State.REBOOTING):
            self.deadline = min(self.deadline, self._entered + self._terms.timeout)
        self._tries += 1
        own = self._identity.options
        given = {options.MESSAGE_TYPE: bytes((self._message_type(),)), **own}
        flags = BROADCAST_FLAG if self._terms.broadcast else 0
        secs = int(now - self._begun)
        message = Message(BOOTREQUEST, self._xid, self._identity.mac, given, secs, flags)
        if self.state is State.REQUESTING and self._offer is not None:
            given[options.REQUESTED_ADDRESS] = self._offer.yiaddr.packed
            given[options.SERVER_ID] = self._offer.options[options.SERVER_ID]
        elif self.state is State.REBOOTING and self.lease is not None:
            given[options.REQUESTED_ADDRESS] = self.lease.ip.packed
        elif self.state is State.SELECTING and self._wanted is not None:
            given[options.REQUESTED_ADDRESS] = self._wanted.packed
        elif self.lease is not None:
            # The address is in use: it is the kernel that answers for it.
            message = message._replace(ciaddr=self.lease.ip, flags=0)
            if self.state is State.RENEWING:
                server = IPv4Address(self.lease.server)
                return [Send(message, self.lease.ip, server, self.lease.server_mac)]
            return [Send(message, self.lease.ip)]
        return [Send(message)]

    def _message_type(self) -> int:
        return DISCOVER if self.state is State.SELECTING else REQUEST

    def _pause(self, now: float) -> float:
        """Until the message is sent again, or the lease comes to its next age."""
        if self.lease is None or self.state is State.REBOOTING:
            return self._delay(self._tries)
        ends = self.lease.rebind if self.state is State.RENEWING else self.lease.expire
        left = self.lease.since + ends - now
        least = min(_LEAST_RENEWAL_SECONDS, self.lease.expire * _LEAST_RENEWAL_PART)
        return min(left, max(left / 2, least))

    def _delay(self, tries: int) -> float:
        delay = _FIRST_DELAY_SECONDS * 2.0 ** min(tries, _MOST_DOUBLINGS)
        return min(delay, self._terms.resend_max) * self._draw.uniform(1 - _JITTER, 1 + _JITTER)

    def _server(self) -> str:
        offer = None if self._offer is None else self._offer.options
        return f"the server {options.addresses(offer or {}, options.SERVER_ID)[0]}"
