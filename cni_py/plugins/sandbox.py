"""What the plugins have in common whose result is one interface in the container."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from cni_py.kernel import links
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.spec.errors import CniError, Code
from cni_py.spec.results import Result

from . import interface
from .veth import ALIAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni_py.kernel.netlink import Request as NetlinkRequest
    from cni_py.kernel.netns import Netns
    from cni_py.spec.call import Call
    from cni_py.spec.results import Interface


def require_free(inside: Netlink, container: Netns, name: str) -> None:
    """Raises CniError when the container has an interface of that name already."""
    if links.get(inside, name) is not None:
        raise taken(container, name)


def taken(container: Netns, name: str) -> CniError:
    """The refusal of an ADD whose interface is there already."""
    msg = f"interface {name} already exists in {container.path}"
    details = "choose another CNI_IFNAME, or detach the interface first"
    return CniError(Code.INTERNAL, msg, details)


def settings(call: Call[Any], mac: str, mtu: int) -> list[NetlinkRequest]:
    """The requests that label the new interface with its owner, and set its address and MTU."""
    name, label = call.ifname, call.attachment.label(ALIAS_BYTES)
    requests = [links.change(name, ("IFLA_IFALIAS", label), what=f"label link {name}")]
    if mac:
        what = f"set the hardware address of {name} to {mac}"
        requests.append(links.change(name, ("IFLA_ADDRESS", mac), what=what))
    if mtu:
        what = f"set the mtu of {name} to {mtu}"
        requests.append(links.change(name, ("IFLA_MTU", mtu), what=what))
    return requests


def decided(call: Call[Any], own: Interface) -> Result:
    """The result of an ADD: what IPAM decides for the interface, or the interface alone.

    The configuration's dns replaces IPAM's where it is set (W-G13). Raises CniError.
    """
    config = call.config
    if not config.ipam.type:
        return Result(interfaces=(own,), dns=config.dns)
    result = interface.ipam_add(call)
    ips = tuple(msgspec.structs.replace(one, interface=0) for one in result.ips)
    return Result((own,), ips, result.routes, config.dns or result.dns)


@contextmanager
def opened(call: Call[Any]) -> Iterator[tuple[Netns, Netlink]]:
    """The container's namespace and a socket in it. Raises CniError 4 where there is none."""
    with interface.require_netns(call, open_netns(call.netns)) as container:
        with container.entered():
            inside = Netlink()
        with inside:
            yield container, inside


def delete(call: Call[Any], kind: str) -> None:
    """Delete the attachment's interface, where there is a namespace left. Raises KernelError.

    One of another kind stays, and one labelled as another attachment's: the path may lead to
    another container's namespace by now. The reference does not label its interfaces.
    """
    container = open_netns(call.netns) if call.netns else None
    if container is None:
        return
    with container:
        with container.entered():
            inside = Netlink()
        with inside:
            link = links.get(inside, call.ifname)
            if link is None or link.kind != kind:
                return
            if not link.alias or link.alias.startswith(call.attachment.key):
                links.delete(inside, link.name)
