"""dummy: give a container an interface that leads nowhere, to hold an address (plugins.md 3.8)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cni_py.ipam import delegation
from cni_py.kernel import new_links
from cni_py.kernel.errors import KernelError, unavailable
from cni_py.kernel.steps import step
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.config import IpamType, PluginConfig
from cni_py.spec.errors import CniError, Code, refusals, require_none
from cni_py.spec.names import validate_new_ifname
from cni_py.spec.results import Interface

from . import interface, mtu, sandbox
from .hardware_address import Args, Mac, mac_mistakes, requested_mac
from .mtu import Mtu
from .teardown import detaching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

_KIND = "dummy"
_MIN_MTU, _MAX_MTU = 68, 65535


class DelConfig(PluginConfig, frozen=True, kw_only=True):
    """What DEL needs to know."""

    ipam: IpamType = IpamType()
    """Who gives out addresses: needed, with `ipam.type`."""


class Config(DelConfig, frozen=True, kw_only=True):
    """dummy's configuration: addresses are what it is for. The reference has no mac and mtu."""

    mac: str = ""
    """The hardware address; none: random."""
    mtu: Mtu = 0
    """68 to 65535, or `auto`; 0: the kernel's."""
    args: Args = Args()
    """What the runtime passes in `args.cni`."""
    runtime_config: Mac = Mac()
    """What the capabilities bring."""


def add(call: Call[Config]) -> Result:
    """Create the interface in the container, and address it."""
    mac = checked(call)
    validate_new_ifname(call.ifname)
    container, inside = call.scope.enter_context(sandbox.opened(call))
    with step("dummy"):
        try:
            inside.submit(new_links.create(call.ifname, _KIND))
        except KernelError as error:
            if error.errno == errno.EEXIST:
                raise sandbox.taken(container, call.ifname) from error
            raise
        call.scope.enter_context(undone_on_failure(lambda: delete(call)))
        inside.submit(*sandbox.settings(call, mac, mtu.of(call)))
        link = interface.require_link(inside, call.ifname)
    result = sandbox.decided(call, Interface(link.name, link.mac, sandbox=call.netns))
    with step("addresses"):
        with container.entered():
            interface.enable_ipv6(link.name, result)
        interface.set_up(inside, link, result, 0)
    return result


def delete(call: Call[Config] | Call[DelConfig]) -> None:
    """Delete the interface, then release the address."""
    with detaching(call) as teardown, teardown.step(), step("dummy"):
        sandbox.delete(call, _KIND)


def check(call: Call[Config]) -> None:
    """Compare everything that ADD set with what is there. Raises CniError naming the difference."""
    config, mac = call.config, checked(call)
    delegation.ipam_check(call.request, config.ipam.type)
    result, index = interface.listed(call)
    with sandbox.opened(call) as (_, inside):
        link = interface.check_link(inside, result.interfaces[index], _KIND)
        name = f"of interface {link.name}"
        interface.require_same(f"state {name}", "up", "up" if link.up else "down")
        interface.require_same(f"mac {name}", mac or link.mac, link.mac)
        interface.require_same(f"mtu {name}", mtu.fixed(config.mtu) or link.mtu, link.mtu)
        interface.check_addresses(inside, link, result, index)
        interface.check_routes(inside, link, result.routes)


def status(call: Call[Config]) -> None:
    """Raises CniError 50 when an ADD could not succeed, or what the IPAM plugin says."""
    with unavailable():
        checked(call)
    delegation.ipam_status(call.request, call.config.ipam.type)


def gc(call: Call[DelConfig], collection: Collection) -> None:
    """A namespace takes its interfaces with it: there are addresses to release."""
    if call.config.ipam.type:
        delegation.ipam_gc(call.request, call.config.ipam.type, collection)


def checked(call: Call[Config]) -> str:
    """Check what types cannot say; returns the hardware address. Raises CniError 7."""
    config = call.config
    require_none(mistakes(call))
    mtu.require(mtu.of(call), _MIN_MTU, _MAX_MTU)
    return requested_mac(config.runtime_config, config.args, call.args, config.mac)


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    if not call.config.ipam.type:
        msg = "dummy interface requires an IPAM configuration"
        yield CniError(
            Code.INVALID_CONFIG, msg, "the key ipam.type is missing or empty", key="ipam"
        )
    yield from refusals("mtu", mtu.require, mtu.fixed(call.config.mtu), _MIN_MTU, _MAX_MTU)
    yield from mac_mistakes(call, call.config.mac)
