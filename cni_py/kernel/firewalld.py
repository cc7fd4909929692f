"""firewalld over the system bus (firewalld.dbus(5)): the sources of its zones.

What is set is the runtime configuration, as the reference plugin's: a reload forgets it.
"""

from __future__ import annotations

import os
import socket
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cni_py.spec.errors import CniError, Code

from . import interruption

if TYPE_CHECKING:
    from jeepney.io.blocking import DBusConnection

_NAME = "org.fedoraproject.FirewallD1"
_PATH = "/org/fedoraproject/FirewallD1"
_SECONDS = 30.0
# What it says of an address that the zone, if there is one, has not.
_NOT_IN_ZONE = frozenset({"NOT_ENABLED", "UNKNOWN_SOURCE", "ZONE_CONFLICT", "INVALID_ZONE"})
_SOCKET = "/run/dbus/system_bus_socket"


class FirewalldError(CniError):
    """What firewalld refused; `reason` is its name for that, such as `ZONE_CONFLICT`."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__(Code.INTERNAL, what, text)
        self.reason = text.partition(":")[0].strip()


class Firewalld:
    """A connection to a firewalld that runs; a context manager that closes it."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection

    def __enter__(self) -> Firewalld:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def add_source(self, zone: str, source: str) -> None:
        """Have a zone take packets from an address. Raises FirewalldError."""
        what = f"failed to add the address {source} to {zone} zone"
        try:
            self._zone(what, "addSource", zone, source)
        except FirewalldError as error:
            if error.reason not in ("ALREADY_ENABLED", "ZONE_ALREADY_SET"):
                raise

    def remove_source(self, zone: str, source: str) -> None:
        """Take it out again; nothing happens where it is not in. Raises FirewalldError."""
        what = f"failed to remove the address {source} from {zone} zone"
        try:
            self._zone(what, "removeSource", zone, source)
        except FirewalldError as error:
            if error.reason not in _NOT_IN_ZONE:
                raise

    def has_source(self, zone: str, source: str) -> bool:
        """Whether a zone has the address. Raises FirewalldError."""
        what = f"failed to look for the address {source} in {zone} zone"
        answer: bool = self._zone(what, "querySource", zone, source)
        return answer

    def zone_of_source(self, source: str) -> str:
        """The zone that has the address, `""` without one. Raises FirewalldError."""
        what = f"failed to look for the zone of {source}"
        zone: str = self._zone(what, "getZoneOfSource", source)
        return zone

    def _zone(self, what: str, method: str, *arguments: str) -> Any:
        from jeepney import DBusAddress, MessageType, new_method_call

        address = DBusAddress(_PATH, bus_name=_NAME, interface=f"{_NAME}.zone")
        message = new_method_call(address, method, "s" * len(arguments), arguments)
        try:
            with interruption.waiting():
                reply = self._connection.send_and_get_reply(message, timeout=_SECONDS)
        except TimeoutError:
            msg = f"{what}: firewalld has not answered within {_SECONDS:.0f} s"
            raise CniError(Code.TRY_AGAIN_LATER, msg) from None
        except OSError as error:
            raise CniError(Code.INTERNAL, f"{what}: {error}") from error
        if reply.header.message_type == MessageType.error:
            raise FirewalldError(what, str(reply.body[0]) if reply.body else "no reason given")
        return reply.body[0] if reply.body else None


def running() -> Firewalld | None:
    """A connection, if firewalld answers on the system bus. It is not started."""
    if not _bus_listens():
        return None
    from jeepney import DBus, MessageType
    from jeepney.io.blocking import open_dbus_connection

    connection = None
    try:
        connection = open_dbus_connection("SYSTEM")
        with interruption.waiting():
            asked = DBus().NameHasOwner(_NAME)
            reply = connection.send_and_get_reply(asked, timeout=_SECONDS)
        if reply.header.message_type != MessageType.error and reply.body[0]:
            found, connection = Firewalld(connection), None
            return found
    except (OSError, ValueError, RuntimeError):
        # No bus, or none for us.
        return None
    finally:
        if connection is not None:
            connection.close()
    return None


def require() -> Firewalld:
    """The same. Raises CniError when firewalld is not there."""
    found = running()
    if found is None:
        msg = "firewalld does not answer on the system bus"
        raise CniError(Code.INTERNAL, msg, 'start it, or set backend to "nftables" or "iptables"')
    return found


class Reloads:
    """A connection that hears when firewalld has reloaded, or has come up."""

    def __init__(self, connection: DBusConnection) -> None:
        self._connection = connection
        self.socket = connection.sock

    def happened(self) -> bool:
        """Read what has come: whether firewalld has forgotten its sources. Raises OSError."""
        from jeepney import HeaderFields

        found = False
        while True:
            try:
                message = self._connection.receive(timeout=0)
            except TimeoutError:
                return found
            member = message.header.fields.get(HeaderFields.member)
            # Whose name it is, who had it, who has it now.
            came = member == "NameOwnerChanged" and message.body[0] == _NAME and message.body[2]
            found = found or member == "Reloaded" or bool(came)


def reloads() -> Reloads | None:
    """Listen for that; None where there is no system bus."""
    if not _bus_listens():
        return None
    from jeepney import DBus, MatchRule, message_bus
    from jeepney.io.blocking import open_dbus_connection

    reloaded = MatchRule(type="signal", interface=_NAME, member="Reloaded", path=_PATH)
    came = MatchRule(type="signal", interface=message_bus.interface, member="NameOwnerChanged")
    came.add_arg_condition(0, _NAME)
    try:
        connection = open_dbus_connection("SYSTEM")
        for rule in (reloaded, came):
            connection.send_and_get_reply(DBus().AddMatch(rule), timeout=_SECONDS)
    except (OSError, ValueError, RuntimeError):
        return None
    return Reloads(connection)


def preload() -> None:
    """Load the library: whether there is a bus, each caller's root has its own answer."""
    import_module("jeepney.io.blocking")


def _bus_listens() -> bool:
    """Whether there is a bus: where nobody listens the library need not be loaded."""
    if os.environ.get("DBUS_SYSTEM_BUS_ADDRESS"):
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(_SOCKET)
        except OSError:
            return False
    return True
