"""One attachment's lease in the daemon: its client, its socket, and what its interface gets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cni_py.kernel import dhcp_messages, sysctl
from cni_py.kernel.boot_clock import now
from cni_py.spec.errors import CniError, Code

from . import interface, options
from .client import Bound, Client, Identity, Lost, Send, State
from .lease import result_of
from .store import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni_py.kernel.dhcp_socket import DhcpSocket
    from cni_py.spec.attachment import Attachment

    from .client import Action, Terms
    from .interface import Place
    from .lease import Lease
    from .store import Store


class House:
    """What the keepers share: the daemon's settings, its store, and how it is told of things.

    `watch` and `unwatch` have a socket read, `log` writes a line, `gone` drops a keeper whose
    interface does not exist any more.
    """

    def __init__(
        self,
        *,
        terms: Terms,
        store: Store,
        socket_path: str,
        watch: Callable[[DhcpSocket, Keeper], None],
        unwatch: Callable[[DhcpSocket], None],
        gone: Callable[[Keeper], None],
        log: Callable[..., None],
    ) -> None:
        self.terms = terms
        self.store = store
        self.socket_path = socket_path
        self.watch = watch
        self.unwatch = unwatch
        self.gone = gone
        self.log = log


class Keeper:
    """Gets the lease and keeps it.

    `answer` is told the outcome of the ADD that waits for it; None once that has been told.
    """

    def __init__(
        self, house: House, attachment: Attachment, place: Place, given: dict[int, bytes]
    ) -> None:
        self.attachment = attachment
        self.place = place
        self.priority = 0
        self.answer: Callable[[Lease | CniError], None] | None = None
        self._house = house
        self._options = given
        broadcast = house.terms.broadcast or place.shares_mac
        terms = house.terms._replace(broadcast=broadcast)
        self._client = Client(Identity(place.mac, given), terms)
        self._socket: DhcpSocket | None = None
        self._listen_until = math.inf
        self._give_up_at = math.inf
        self._begin_at = math.inf
        self._messages = 0
        self._applied: Lease | None = None
        self._resumed: Lease | None = None

    @property
    def lease(self) -> Lease | None:
        """The lease that holds, also one that has not been confirmed since the daemon started."""
        return self._client.lease or self._resumed

    @property
    def deadline(self) -> float:
        """When `advance` is due."""
        return min(self._client.deadline, self._listen_until, self._give_up_at, self._begin_at)

    def acquire(self, answer: Callable[[Lease | CniError], None]) -> None:
        """Begin to ask for a lease; `answer` is told the outcome."""
        self.answer = answer
        time = now()
        self._give_up_at = time + self._house.terms.resend_timeout
        self._perform(self._client.begin(time))

    def resume(self, record: Record, begin_at: float) -> None:
        """Go on with what an earlier daemon has kept, at that time."""
        self.priority = record.priority
        self._applied = record.applied
        self._resumed = record.lease
        self._begin_at = begin_at

    def advance(self) -> None:
        """What is due."""
        time = now()
        if time >= self._give_up_at:
            self._fail(self._no_lease())
            return
        if time >= self._begin_at:
            self._begin_at = math.inf
            self._begin_again(time)
            return
        if time >= self._listen_until:
            self._stop_listening()
        self._perform(self._client.advance(time))

    def hear(self) -> None:
        """Read what has come on the socket."""
        if self._socket is None:
            return
        for heard in list(self._socket.receive()):
            try:
                message = dhcp_messages.decode(heard.data)
            except ValueError as error:
                self._house.log("message not understood", self.attachment, error=str(error))
                continue
            self._perform(self._client.hear(message, heard.mac, now()))
        if self._client.state is State.BOUND:
            self._stop_listening()

    def release(self) -> None:
        """Give the lease back, if the interface is still there to say so, and forget it."""
        lease = self.lease
        self._client.lease, self._resumed = lease, None
        sent = False
        try:
            if lease is not None and interface.is_there(self.place):
                interface.withdraw(self.place, lease)
                send = self._client.release() if not lease.is_over(now()) else None
                if send is not None:
                    self._send(send)
                    sent = self._socket is not None
        except (CniError, OSError) as error:
            self._house.log("release failed", self.attachment, error=str(error))
        self.forget()
        if lease is not None:
            self._house.log("released", self.attachment, address=lease.address, told=sent)

    def forget(self) -> None:
        """Keep nothing of the lease."""
        self._client.lease, self._client.state = None, State.IDLE
        self._client.deadline = math.inf
        self._give_up_at = self._begin_at = math.inf
        self._stop_listening()
        try:
            self._house.store.remove(self.attachment)
        except CniError as error:
            self._house.log("lease stays on disk", self.attachment, error=str(error))

    def refuse(self, msg: str) -> None:
        """Tell an ADD that waits, if there is one, that it gets no lease."""
        self._stop_listening()
        self._tell(CniError(Code.TRY_AGAIN_LATER, msg))

    # What the client asks for.

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            try:
                if isinstance(action, Send):
                    self._send(action)
                elif isinstance(action, Bound):
                    self._bound(action.lease)
                else:
                    self._lost(action)
            except CniError as error:
                self._house.log("failed", self.attachment, error=str(error))
                # What could not be sent is sent again, when it is due.
                self._client.trouble = str(error)
                if self.answer is not None and not isinstance(action, Send):
                    self._fail(error)
                    return

    def _send(self, send: Send) -> None:
        if self._socket is None:
            self._socket = interface.open_socket(self.place)
            if self._socket is None:
                self._vanish()
                return
            self._house.watch(self._socket, self)
        data = dhcp_messages.encode(send.message)
        self._messages += 1
        self._socket.send(data, send.source, send.destination, send.mac)
        # A container that waits for its first lease listens all the time.
        pause = math.inf if self.answer is not None else self._house.terms.timeout
        self._listen_until = now() + pause

    def _bound(self, lease: Lease) -> None:
        first = self.answer is not None
        try:
            result_of(lease, self.priority)
        except CniError as error:
            if first:
                self.release()
                self._fail(error)
                return
            raise
        self._listen_until = now()
        before = self._applied
        try:
            if first or (before is not None and not _differ(before, lease)):
                self._applied = lease
            else:
                self._change(lease)
        finally:
            self._save(lease)
        # Set once: somebody else may have reason to set it since.
        asked = options.INTERFACE_MTU in self._options.get(options.PARAMETERS, b"")
        if asked and (before is None or before.mtu != lease.mtu):
            interface.limit_mtu(self.place, lease)
        self._house.log(
            "bound" if first else "renewed",
            self.attachment,
            address=lease.address,
            server=lease.server,
            messages=self._messages,
        )
        self._messages = 0
        if first:
            self._tell(lease)

    def _change(self, lease: Lease) -> None:
        """The interface follows the lease, unless its address was never on it."""
        old = self._applied
        if old is not None and not interface.has_address(self.place, old):
            return
        try:
            interface.change(self.place, old, lease, self.priority)
        except CniError:
            # What it could not do, the next renewal does from the beginning.
            self._applied = None
            if old is not None:
                interface.withdraw(self.place, old)
            raise
        self._applied = lease
        before = "" if old is None else old.address
        self._house.log("changed", self.attachment, address=lease.address, before=before)

    def _lost(self, lost: Lost) -> None:
        self._house.log("lost", self.attachment, address=lost.lease.address, reason=lost.reason)
        if interface.withdraw(self.place, self._applied or lost.lease):
            self._applied = None
        self._save(lost.lease)

    def _save(self, lease: Lease) -> None:
        record = Record(
            attachment=self.attachment,
            socket=self._house.socket_path,
            boot=sysctl.boot_id(),
            place=self.place,
            options=self._options,
            priority=self.priority,
            lease=lease,
            applied=self._applied,
        )
        self._house.store.save(record)

    def _begin_again(self, time: float) -> None:
        """The first step after the daemon has started."""
        lease, self._resumed = self._resumed, None
        if lease is not None:
            self._perform(self._client.resume(lease, time))

    def _no_lease(self) -> CniError:
        seconds = self._house.terms.resend_timeout
        msg = f"no DHCP lease for interface {self.place.ifname} within {seconds:g} s"
        return CniError(Code.TRY_AGAIN_LATER, msg, self._client.trouble)

    def _fail(self, error: CniError) -> None:
        """The ADD that waits gets the error, and nothing is kept."""
        answer = self.answer
        self.release()
        self._house.gone(self)
        self.answer = answer
        self._tell(error)

    def _tell(self, outcome: Lease | CniError) -> None:
        answer, self.answer = self.answer, None
        self._give_up_at = math.inf
        if answer is not None:
            answer(outcome)

    def _vanish(self) -> None:
        """The interface is gone: nobody uses the address any more."""
        self._house.log("interface gone", self.attachment, ifname=self.place.ifname)
        if self.answer is not None:
            msg = f"interface {self.place.ifname} vanished from {self.place.netns}"
            self._fail(CniError(Code.TRY_AGAIN_LATER, msg))
            return
        self.forget()
        self._house.gone(self)

    def _stop_listening(self) -> None:
        self._listen_until = math.inf
        if self._socket is not None:
            self._house.unwatch(self._socket)
            self._socket.close()
            self._socket = None


def _differ(old: Lease, new: Lease) -> bool:
    """Whether the interface has to change."""
    keys = (options.SUBNET_MASK, options.ROUTER, options.STATIC_ROUTES, options.CLASSLESS_ROUTES)
    same = all(old.options.get(key) == new.options.get(key) for key in keys)
    return old.address != new.address or not same
