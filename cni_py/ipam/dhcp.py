"""dhcp: the address that the network's DHCP server leases, kept by a daemon (plugins.md 5.3)."""

from __future__ import annotations

import os
from contextlib import contextmanager
from hashlib import sha512
from typing import TYPE_CHECKING

import msgspec

from cni_py.dhcp import options, protocol
from cni_py.dhcp.caller import Caller, NoDaemonError
from cni_py.dhcp.lease import result_of
from cni_py.kernel import interruption, state_files
from cni_py.kernel.errors import unavailable
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code, refusals
from cni_py.spec.names import validate_new_ifname

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.attachment import Attachment
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

NAME = "dhcp"

# The reference plugin asks for the first two.
_DEFAULT_REQUEST = (
    options.ROUTER,
    options.SUBNET_MASK,
    options.NAME_SERVERS,
    options.DOMAIN_NAME,
    options.SEARCH_LIST,
)
_OWN_OPTIONS = {
    options.REQUESTED_ADDRESS: "requested address",
    options.MESSAGE_TYPE: "message type",
    options.SERVER_ID: "server",
    options.PARAMETERS: "list of requested options",
}
_MOST_MESSAGE_BYTES = 1500
_MOST_VALUE_BYTES = 255
_MOST_ID_BYTES = 254
_DIGEST_DIGITS = 32
_MOST_PRIORITY = 0xFFFFFFFF


class _Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of `request`."""

    option: str = ""
    """A number from 1 to 254, or an option's name such as `routers`."""
    skip_default: bool = False
    """Leave the default options out of the request."""


class _Provide(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of `provide`."""

    option: str
    """A number from 1 to 254, or an option's name such as `host-name`."""
    value: str = ""
    """The option's text."""
    from_arg: str = ""
    """The key of CNI_ARGS whose value replaces `value`."""


class _Ipam(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The `ipam` key."""

    type: str = NAME
    """`dhcp`."""
    daemon_socket_path: str = protocol.DEFAULT_SOCKET
    """The socket that the daemon listens on."""
    request: tuple[_Request, ...] = ()
    """Options to ask the server for, before the default ones: 3, 1, 6, 15, 119."""
    provide: tuple[_Provide, ...] = ()
    """Options to tell the server, as text."""
    priority: int = 0
    """The metric of every route; 0: the kernel's default."""


class Config(PluginConfig, frozen=True, kw_only=True):
    """dhcp's configuration."""

    ipam: _Ipam | None = None
    """Where the addresses come from: the network's DHCP server."""


class _IpamSocket(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    daemon_socket_path: str = protocol.DEFAULT_SOCKET


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL and GC need: options that ADD would refuse must not keep a lease."""

    ipam: _IpamSocket = _IpamSocket()


def add(call: Call[Config]) -> Result:
    """A lease for the interface, which exists already."""
    ipam = _ipam(call.config)
    given = _options(call, ipam)
    validate_new_ifname(call.ifname)
    if not call.netns:
        msg = "required env variables [CNI_NETNS] missing"
        raise CniError(Code.INVALID_ENVIRONMENT, msg)
    asked = protocol.Acquire(
        attachment=call.attachment,
        netns=os.path.abspath(call.netns),
        options=given,
        priority=ipam.priority,
    )
    caller = call.scope.enter_context(Caller(_path(ipam.daemon_socket_path)))
    with step("lease"):
        found = caller.ask(asked, protocol.Found)
    call.scope.enter_context(undone_on_failure(lambda: _release(call, ipam.daemon_socket_path)))
    call.scope.enter_context(_kept(caller))
    if found.lease is None:
        raise CniError(Code.INTERNAL, "the DHCP daemon gave no lease")
    return result_of(found.lease, ipam.priority)


def delete(call: Call[DelConfig]) -> None:
    """Give the lease back; without a daemon that is an error only if there is a lease."""
    _release(call, call.config.ipam.daemon_socket_path)


def check(call: Call[Config]) -> None:
    """Whether the lease holds, and is the one that the previous result tells (W-DH6)."""
    ipam = _ipam(call.config)
    _options(call, ipam)
    if call.prev_result is None:
        raise CniError(Code.INVALID_CONFIG, "Required prevResult missing")
    found = protocol.Found(lease=None)
    if _may_be_known(call):
        with Caller(_path(ipam.daemon_socket_path)) as caller:
            found = caller.ask(protocol.LookUp(attachment=call.attachment), protocol.Found)
    if found.lease is None or found.is_over:
        msg = f"dhcp: container {call.container_id} has no lease for {call.ifname}"
        details = "the daemon does not know it" if found.lease is None else "it expired"
        raise CniError(Code.INTERNAL, msg, details)
    (leased,) = result_of(found.lease, ipam.priority).ips
    same = [one for one in call.prev_result.ips if one.address == leased.address]
    listed = ", ".join(str(one.address) for one in call.prev_result.ips) or "no address"
    if not same:
        msg = f"dhcp: address {leased.address} of the lease is not in prevResult"
        raise CniError(Code.INTERNAL, msg, f"prevResult has {listed}")
    if leased.gateway is not None and all(one.gateway != leased.gateway for one in same):
        msg = f"dhcp: the gateway of {leased.address} differs"
        details = f"leased {leased.gateway}, prevResult has {same[0].gateway or 'none'}"
        raise CniError(Code.INTERNAL, msg, details)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when the configuration is wrong or the daemon does not answer."""
    with unavailable():
        ipam = _ipam(call.config)
        _options(call, ipam)
        with Caller(_path(ipam.daemon_socket_path)) as caller:
            caller.ask(protocol.Ping(), protocol.Done)


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    yield from refusals("ipam", _ipam, call.config)
    if call.config.ipam is not None:
        yield from refusals("ipam.request", _requested, call.config.ipam)
        yield from refusals("ipam.provide", _provided, call.config.ipam, call.args)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """Give back the leases of the attachments that the collection takes.

    The daemon forgets by itself what has lost its interface.
    """
    from cni_py.dhcp.store import Store

    network = call.request.network
    try:
        with Caller(_path(call.config.ipam.daemon_socket_path)) as caller:
            listed = caller.ask(protocol.List(network=network), protocol.Listed)
            for one in listed.attachments:
                if collection.takes("DHCP lease", one):
                    caller.ask(protocol.Release(attachment=one), protocol.Done)
    except NoDaemonError:
        if Store().has_network(network):
            raise
    for path in Store().taken_aside(collection):
        state_files.discard(path)


@contextmanager
def _kept(caller: Caller) -> Iterator[None]:
    """Tell the daemon once the result is out: a plugin that dies before holds no lease."""
    yield
    # The result is out: a signal comes too late.
    with interruption.shielded():
        caller.tell(protocol.Kept())


def _release(call: Call[Config] | Call[DelConfig], path: str) -> None:
    if not _may_be_known(call):
        return
    asked = protocol.Release(attachment=call.attachment)
    try:
        with Caller(_path(path)) as caller:
            caller.ask(asked, protocol.Done)
    except NoDaemonError:
        from cni_py.dhcp.store import Store

        if Store().has(call.attachment):
            raise


def _may_be_known(call: Call[Config] | Call[DelConfig]) -> bool:
    """Whether ADD would have taken the interface's name, and JSON can carry it."""
    try:
        call.ifname.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ipam(config: Config) -> _Ipam:
    if config.ipam is None:
        raise CniError(Code.INVALID_CONFIG, "IPAM config missing 'ipam' key", key="ipam")
    if not 0 <= config.ipam.priority <= _MOST_PRIORITY:
        msg = f"invalid ipam.priority {config.ipam.priority}"
        details = f"a metric is 0 to {_MOST_PRIORITY}"
        raise CniError(Code.INVALID_CONFIG, msg, details, key="ipam.priority")
    return config.ipam


def _path(path: str) -> str:
    return path or protocol.DEFAULT_SOCKET


def _options(call: Call[Config], ipam: _Ipam) -> dict[int, bytes]:
    """The options that go with every DISCOVER and REQUEST."""
    given = {
        options.MAX_MESSAGE_BYTES: _MOST_MESSAGE_BYTES.to_bytes(2, "big"),
        options.CLIENT_ID: client_id(call.attachment),
    }
    requested = _requested(ipam)
    if requested:
        given[options.PARAMETERS] = bytes(requested)
    return given | _provided(ipam, call.args)


def client_id(attachment: Attachment) -> bytes:
    """`<container id>/<network>/<ifname>` as the reference says it; of no type (RFC 2132, 9.14).

    One that is too long ends in a digest of the whole, so that no two are the same (W-DH9).
    """
    parts = (attachment.container_id, attachment.network, attachment.ifname)
    text = "/".join(parts).encode(errors="surrogateescape")
    if len(text) > _MOST_ID_BYTES:
        digest = sha512(text).hexdigest()[:_DIGEST_DIGITS].encode()
        text = text[: _MOST_ID_BYTES - _DIGEST_DIGITS] + digest
    return b"\0" + text


def _requested(ipam: _Ipam) -> list[int]:
    """The codes asked for, each once: `request`, and the defaults unless an entry skips them."""
    codes = [
        options.code_of(one.option, f"ipam.request[{index}].option")
        for index, one in enumerate(ipam.request)
        if one.option or not one.skip_default
    ]
    if not any(one.skip_default for one in ipam.request):
        codes += _DEFAULT_REQUEST
    return list(dict.fromkeys(codes))


def _provided(ipam: _Ipam, args: str) -> dict[int, bytes]:
    """The options of `provide`, by their text or by a value of CNI_ARGS, which comes first."""
    pairs = dict(one.split("=", 1) for one in args.split(";") if "=" in one)
    found: dict[int, bytes] = {}
    for index, one in enumerate(ipam.provide):
        key = f"ipam.provide[{index}]"
        code = options.code_of(one.option, f"{key}.option")
        if code in _OWN_OPTIONS:
            msg = f"{key}.option {code} cannot be provided"
            details = f"the {_OWN_OPTIONS[code]} is the protocol's own"
            raise CniError(Code.INVALID_CONFIG, msg, details, key=f"{key}.option")
        value = pairs.get(one.from_arg, one.value) if one.from_arg else one.value
        data = value.encode(errors="surrogateescape")
        if len(data) > _MOST_VALUE_BYTES:
            msg = f"{key} is {len(data)} bytes long"
            details = f"an option has at most {_MOST_VALUE_BYTES}"
            raise CniError(Code.INVALID_CONFIG, msg, details, key=key)
        if data:
            found[code] = data
    return found
