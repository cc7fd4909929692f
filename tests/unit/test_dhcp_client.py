"""The DHCP client's states, with a clock that the test sets (RFC 2131, 4.4)."""

from __future__ import annotations

import math
import random
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cni_py.dhcp.client import (
    ACK,
    DISCOVER,
    NAK,
    OFFER,
    RELEASE,
    REQUEST,
    Action,
    Bound,
    Client,
    Identity,
    Lost,
    Send,
    State,
    Terms,
)
from cni_py.kernel.dhcp_messages import BOOTREPLY, Message

MAC = bytes.fromhex("020000000001")
SERVER, SERVER_MAC = IPv4Address("10.9.0.1"), bytes.fromhex("0200000000fe")
OTHER = IPv4Address("10.9.0.2")
ADDRESS = IPv4Address("10.9.0.50")
OWN = {55: b"\3\1", 57: b"\5\xdc", 61: b"\0id"}
TERMS = Terms(timeout=10.0, resend_max=62.0, resend_timeout=208.0)


def client(terms: Terms = TERMS) -> Client:
    return Client(Identity(MAC, OWN), terms, random.Random(1))


def seconds(value: int) -> bytes:
    return value.to_bytes(4, "big")


def answer(to: Message, kind: int, server: IPv4Address = SERVER, **keys: object) -> Message:
    """A server's answer; a lease is for 100 seconds with T1 50 and T2 80."""
    options = {53: bytes((kind,)), 54: server.packed}
    if kind in (OFFER, ACK):
        options |= {1: b"\xff\xff\xff\0", 51: seconds(100), 58: seconds(50), 59: seconds(80)}
    address = ADDRESS if kind != NAK else IPv4Address(0)
    made = Message(BOOTREPLY, to.xid, to.chaddr, options, yiaddr=address)
    return made._replace(**keys)


def sent(actions: list[Action]) -> Send:
    """The one message among the actions."""
    (one,) = [action for action in actions if isinstance(action, Send)]
    return one


def bound(at: float = 0.0) -> Client:
    """A client that has a lease since `at`."""
    one = client()
    discover = sent(one.begin(at)).message
    request = sent(one.hear(answer(discover, OFFER), SERVER_MAC, at)).message
    (event,) = one.hear(answer(request, ACK), SERVER_MAC, at)
    assert isinstance(event, Bound)
    return one


def test_acquisition() -> None:
    """[A.17]"""
    one = client()
    discover = sent(one.begin(5.0))
    assert discover.message.type == DISCOVER
    assert discover.message.options == {53: b"\1", **OWN}
    assert one.state is State.SELECTING
    request = sent(one.hear(answer(discover.message, OFFER), SERVER_MAC, 6.0))
    assert request.message.xid == discover.message.xid
    assert request.message.options == {
        53: bytes((REQUEST,)), **OWN, 50: ADDRESS.packed, 54: SERVER.packed,
    }  # fmt: skip
    assert request.message.secs == 1
    (event,) = one.hear(answer(request.message, ACK), SERVER_MAC, 7.0)
    assert isinstance(event, Bound)
    lease = event.lease
    assert (lease.address, lease.server, lease.server_mac) == ("10.9.0.50", "10.9.0.1", SERVER_MAC)
    # It counts from the request, not from the answer.
    assert (lease.since, one.deadline, one.state) == (6.0, 56.0, State.BOUND)


def test_repetitions() -> None:
    """1, 2, 4 ... seconds with a tenth more or less, up to the longest pause."""
    one = client(TERMS._replace(resend_max=8.0))
    one.begin(0.0)
    now, pauses = 0.0, []
    for _ in range(6):
        pauses.append(one.deadline - now)
        now = one.deadline
        assert sent(one.advance(now)).message.type == DISCOVER
    for pause, expected in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True):
        assert expected * 0.9 <= pause <= expected * 1.1
    assert one.advance(now) == []


def test_first_offer_counts() -> None:
    """The ACK of a server whose offer was not taken is none."""
    one = client()
    discover = sent(one.begin(0.0)).message
    request = sent(one.hear(answer(discover, OFFER), SERVER_MAC, 0.0)).message
    assert one.hear(answer(discover, OFFER, OTHER), SERVER_MAC, 0.0) == []
    assert one.hear(answer(request, ACK, OTHER), SERVER_MAC, 0.0) == []
    assert one.hear(answer(request, NAK, OTHER), SERVER_MAC, 0.0) == []
    assert one.hear(answer(request, ACK), SERVER_MAC, 0.0) != []


@pytest.mark.parametrize(
    "change",
    [{"xid": 1}, {"chaddr": bytes(6)}, {"op": 1}, {"options": {54: SERVER.packed}}],
    ids=["xid", "chaddr", "op", "type"],
)
@pytest.mark.parametrize("state", ["selecting", "requesting", "renewing"])
def test_others_messages(state: str, change: dict) -> None:
    """What is not an answer to this client changes nothing."""
    one = bound() if state == "renewing" else client()
    message = sent(one.advance(50.0) if state == "renewing" else one.begin(0.0)).message
    if state == "requesting":
        message = sent(one.hear(answer(message, OFFER), SERVER_MAC, 0.0)).message
    before = (one.state, one.deadline, one.lease)
    kind = OFFER if state == "selecting" else ACK
    assert one.hear(answer(message, kind)._replace(**change), SERVER_MAC, 1.0) == []
    assert (one.state, one.deadline, one.lease) == before


def test_offers_that_are_none() -> None:
    one = client()
    discover = sent(one.begin(0.0)).message
    nobodys = answer(discover, OFFER)
    nobodys = nobodys._replace(options={53: bytes((OFFER,))})
    assert one.hear(nobodys, SERVER_MAC, 0.0) == []
    assert one.trouble == "a server's offer does not name the server"
    empty = answer(discover, OFFER, yiaddr=IPv4Address(0))
    assert one.hear(empty, SERVER_MAC, 0.0) == []
    assert one.state is State.SELECTING


def test_unanswered_request() -> None:
    """Repeated, and after the time for one request everything begins again."""
    one = client()
    discover = sent(one.begin(0.0)).message
    one.hear(answer(discover, OFFER), SERVER_MAC, 0.0)
    types, now = [], 0.0
    while not types or types[-1] == REQUEST:
        now = one.deadline
        message = sent(one.advance(now)).message
        types.append(message.type)
    assert (types, now) == ([REQUEST, REQUEST, REQUEST, DISCOVER], TERMS.timeout)
    assert message.xid != discover.xid
    assert one.trouble == "the server 10.9.0.1 did not answer the request for its offer"


def test_refusals_are_not_a_loop() -> None:
    """A server that offers and refuses is asked less and less often."""
    one = client()
    actions, now, times = one.begin(0.0), 0.0, []
    for _ in range(6):
        while not actions:
            now = one.deadline
            actions = one.advance(now)
        times.append(now)
        request = sent(one.hear(answer(sent(actions).message, OFFER), SERVER_MAC, now)).message
        actions = one.hear(answer(request, NAK), SERVER_MAC, now)
    assert times[:2] == [0.0, 0.0]
    pauses = [after - before for before, after in pairwise(times[1:])]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 0.9
    assert one.trouble == "the server 10.9.0.1 refused"


def test_renewal() -> None:
    """[5.3.4] To the server alone, with ciaddr, without 50 and 54; then T1 counts anew."""
    one = bound()
    assert one.advance(49.9) == []
    renewal = sent(one.advance(50.0))
    assert (renewal.source, renewal.destination, renewal.mac) == (ADDRESS, SERVER, SERVER_MAC)
    assert renewal.message.ciaddr == ADDRESS
    assert renewal.message.options == {53: bytes((REQUEST,)), **OWN}
    (event,) = one.hear(answer(renewal.message, ACK), SERVER_MAC, 51.0)
    assert isinstance(event, Bound)
    assert (event.lease.since, one.deadline, one.state) == (50.0, 100.0, State.BOUND)


def test_life_without_a_server() -> None:
    """[5.3.4, W-DH5] T1: to the server; T2: to all; the end: lost, and asked for again."""
    one = bound()
    seen = []
    for _ in range(100):
        now = one.deadline
        actions = one.advance(now)
        lost = [action for action in actions if isinstance(action, Lost)]
        if lost:
            break
        seen.append((now, one.state, str(sent(actions).destination)))
    renewing = [when for when, state, _ in seen if state is State.RENEWING]
    rebinding = [when for when, state, _ in seen if state is State.REBINDING]
    assert (renewing[0], rebinding[0], now) == (50.0, 80.0, 100.0)
    assert renewing[1] == 65.0
    assert {where for _, state, where in seen if state is State.REBINDING} == {"255.255.255.255"}
    # As often as makes sense, and no more.
    assert len(seen) < 12
    assert lost[0].reason == "it expired"
    again = sent(actions).message
    assert (again.type, again.options[50], again.ciaddr) == (
        DISCOVER,
        ADDRESS.packed,
        IPv4Address(0),
    )
    assert one.lease is None


def test_other_address() -> None:
    """[W-DH5] Whatever the server acknowledges is the lease."""
    one = bound()
    renewal = sent(one.advance(50.0)).message
    (event,) = one.hear(answer(renewal, ACK, yiaddr=OTHER), SERVER_MAC, 50.0)
    assert isinstance(event, Bound)
    assert event.lease.ip == OTHER


def test_renewal_need_not_repeat() -> None:
    """Mask and server stay where the ACK of a renewal leaves them out."""
    one = bound()
    renewal = sent(one.advance(50.0)).message
    short = Message(BOOTREPLY, renewal.xid, MAC, {53: bytes((ACK,))}, yiaddr=ADDRESS)
    (event,) = one.hear(short, SERVER_MAC, 50.0)
    assert isinstance(event, Bound)
    assert event.lease.options[1] == b"\xff\xff\xff\0"
    assert event.lease.server == "10.9.0.1"


def test_refused_renewal() -> None:
    """[W-DH5] Lost at once; the address is asked for again."""
    one = bound()
    renewal = sent(one.advance(50.0)).message
    nak = answer(renewal, NAK)
    nak.options[56] = b"moved"
    lost, again = one.hear(nak, SERVER_MAC, 51.0)
    assert isinstance(lost, Lost)
    assert lost.reason == "the server 10.9.0.1 refused: moved"
    assert isinstance(again, Send)
    assert again.message.type == DISCOVER


def test_reboot() -> None:
    """[W-DH2] INIT-REBOOT: by broadcast, with 50, without 54 and ciaddr."""
    lease = bound().lease
    assert lease is not None
    one = client()
    reboot = sent(one.resume(lease, 20.0)).message
    assert reboot.options == {53: bytes((REQUEST,)), **OWN, 50: ADDRESS.packed}
    assert reboot.ciaddr == IPv4Address(0)
    assert one.state is State.REBOOTING
    (event,) = one.hear(answer(reboot, ACK), SERVER_MAC, 20.5)
    assert isinstance(event, Bound)
    assert one.deadline == 70.0


@pytest.mark.parametrize(
    ("at", "state", "deadline"),
    [(20.0, State.BOUND, 50.0), (45.0, State.RENEWING, 0.0), (75.0, State.REBINDING, 0.0)],
)
def test_reboot_without_an_answer(at: float, state: State, deadline: float) -> None:
    """[W-DH2] The lease goes on where it is in its life."""
    lease = bound().lease
    assert lease is not None
    one = client()
    one.resume(lease, at)
    actions: list[Action] = []
    while one.state is State.REBOOTING:
        actions = one.advance(one.deadline)
    assert one.state is state
    assert one.lease == lease
    if deadline:
        assert (actions, one.deadline) == ([], deadline)
    else:
        assert sent(actions).message.ciaddr == ADDRESS


def test_reboot_too_late() -> None:
    lease = bound().lease
    assert lease is not None
    one = client()
    lost, again = one.resume(lease, 100.0)
    assert lost == Lost(lease, "it expired")
    assert isinstance(again, Send)
    assert again.message.options[50] == ADDRESS.packed


def test_release() -> None:
    """[A.17] ciaddr, 54 and 61, to the server; then there is nothing more to do."""
    one = bound()
    release = one.release()
    assert release is not None
    assert release.message.options == {53: bytes((RELEASE,)), 54: SERVER.packed, 61: b"\0id"}
    assert release.message.ciaddr == ADDRESS
    assert (release.source, release.destination, release.mac) == (ADDRESS, SERVER, SERVER_MAC)
    assert (one.state, one.lease, one.deadline) == (State.IDLE, None, math.inf)
    assert one.advance(1e9) == []
    assert one.release() is None


def test_broadcast_flag() -> None:
    """[W-DH1] Only while there is no address: then the kernel answers for it."""
    one = client(TERMS._replace(broadcast=True))
    discover = sent(one.begin(0.0)).message
    request = sent(one.hear(answer(discover, OFFER), SERVER_MAC, 0.0)).message
    assert (discover.flags, request.flags) == (0x8000, 0x8000)
    one.hear(answer(request, ACK), SERVER_MAC, 0.0)
    assert sent(one.advance(50.0)).message.flags == 0


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_any_times(expire: int, renew: int, rebind: int) -> None:
    """Whatever the server says, the client comes to the end of the lease, in few steps."""
    one = client()
    discover = sent(one.begin(0.0)).message
    request = sent(one.hear(answer(discover, OFFER), SERVER_MAC, 0.0)).message
    ack = answer(request, ACK)
    ack.options.update({51: seconds(expire), 58: seconds(renew), 59: seconds(rebind)})
    one.hear(ack, SERVER_MAC, 0.0)
    now = 0.0
    for _ in range(200):
        assert one.deadline >= now
        now = one.deadline
        if any(isinstance(action, Lost) for action in one.advance(now)):
            break
    assert now == expire


class Life(RuleBasedStateMachine):
    """Any messages at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.client = client()
        self.last = sent(self.client.begin(0.0)).message
        self.bound = False

    def done(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.last = action.message
            elif isinstance(action, Bound):
                self.bound = True
            else:
                assert self.bound, "lost what it did not have"
                self.bound = False

    @rule(after=st.floats(0, 30))
    def wait(self, after: float) -> None:
        self.now += after
        self.done(self.client.advance(self.now))

    @rule()
    def wait_for_deadline(self) -> None:
        self.now = max(self.now, self.client.deadline)
        self.done(self.client.advance(self.now))
        assert self.client.deadline > self.now

    @rule(kind=st.sampled_from([OFFER, ACK, NAK, DISCOVER, 0]),
          server=st.sampled_from([SERVER, OTHER]),
          address=st.sampled_from([ADDRESS, OTHER, IPv4Address(0)]))  # fmt: skip
    def hear(self, kind: int, server: IPv4Address, address: IPv4Address) -> None:
        message = answer(self.last, kind, server, yiaddr=address)
        self.done(self.client.hear(message, SERVER_MAC, self.now))

    @invariant()
    def has_the_lease_that_it_says(self) -> None:
        assert (self.client.lease is not None) == self.bound
        # Not used for longer than it was given for.
        if self.client.lease is not None:
            assert self.client.deadline <= self.client.lease.since + self.client.lease.expire

    @invariant()
    def does_not_stop(self) -> None:
        assert self.client.deadline < math.inf


TestLife = Life.TestCase
