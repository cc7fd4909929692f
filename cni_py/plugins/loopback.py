"""loopback: set the container's `lo` up (plugins.md 3.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni_py.kernel import addresses, links, sysctl
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.config import PluginConfig
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import Interface, IPConfig, Result

from . import interface

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection

Config = PluginConfig
DelConfig = PluginConfig

# CNI_IFNAME is not looked at: a namespace has one loopback interface.
_LO = "lo"
_DISABLE_IPV6 = "net/ipv6/conf/lo/disable_ipv6"


def add(call: Call[PluginConfig]) -> Result:
    """`lo` up, with 127.0.0.1 and ::1; the previous result is passed on as it came."""
    with interface.require_netns(call, open_netns(call.netns)) as container:
        with container.entered():
            sysctl.write_if_present(_DISABLE_IPV6, "0")
            inside = Netlink()
        with inside:
            link = links.get(inside, _LO)
            if link is None:
                raise CniError(Code.INTERNAL, f"{call.netns} has no loopback interface")
            have = [one.address for one in addresses.dump(inside, link.ifindex)]
            foreign = next((one for one in have if not one.is_loopback), None)
            if foreign is not None:
                msg = f'loopback interface found with non-loopback address "{foreign}"'
                raise CniError(Code.INTERNAL, msg)
            if not link.up:
                call.scope.enter_context(undone_on_failure(lambda: delete(call)))
            inside.submit(links.set_up(_LO))
            have = [one.address for one in addresses.dump(inside, link.ifindex)]
    if call.prev_result is not None:
        return call.prev_result
    own = Interface(_LO, link.mac, sandbox=call.netns)
    have.sort(key=lambda one: (one.version, int(one.ip)))
    return Result(interfaces=(own,), ips=tuple(IPConfig(one, None, 0) for one in have))


def delete(call: Call[PluginConfig]) -> None:
    """Set `lo` down again, where there is a namespace left."""
    container = open_netns(call.netns) if call.netns else None
    if container is None:
        return
    with container:
        with container.entered():
            inside = Netlink()
        with inside:
            inside.submit(links.set_flags(_LO, 0, links.IFF_UP))


def check(call: Call[PluginConfig]) -> None:
    """Whether `lo` is up."""
    with interface.require_netns(call, open_netns(call.netns)) as container:
        with container.entered():
            inside = Netlink()
        with inside:
            link = links.get(inside, _LO)
            if link is None or not link.up:
                raise CniError(Code.INTERNAL, "loopback interface is down", f"in {call.netns}")


def status(call: Call[PluginConfig]) -> None:
    """Always ready."""


def mistakes(call: Call[PluginConfig]) -> Iterator[CniError]:  # noqa: ARG001 - a handler's form
    """There are no keys."""
    return iter(())


def gc(call: Call[PluginConfig], collection: Collection) -> None:
    """A namespace takes its `lo` with it."""
