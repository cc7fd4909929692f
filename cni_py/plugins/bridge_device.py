"""The bridge itself: create or verify it, and keep the gateways' addresses on it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import ExitStack, contextmanager
from hashlib import sha512
from typing import TYPE_CHECKING

from cni_py.kernel import addresses, links, sysctl
from cni_py.kernel.errors import KernelError
from cni_py.kernel.links import Link, VethEnd
from cni_py.kernel.lock import try_lock
from cni_py.kernel.netns import OWN
from cni_py.kernel.undo import undone_on_failure
from cni_py.spec.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni_py.kernel.netlink import Netlink
    from cni_py.spec.addresses import Cidr

_LOCALLY_ADMINISTERED = 0x02
_MULTICAST = 0x01
_MAC_BYTES = 6
_IFNAME_BYTES = 15
_LOCK_SECONDS = 1.0
_LOCK_PAUSE_SECONDS = 0.005
# The group of a bridge whose maker has not ended well yet.
_UNFINISHED = 0x45000000


@contextmanager
def ensured(
    host: Netlink, name: str, *, mtu: int, vlan_filtering: bool, promiscuous: bool
) -> Iterator[Link]:
    """The bridge `name`, up, while the block runs. Raises CniError.

    A bridge that is created here is marked until the block has ended well. If it fails, a marked
    bridge goes again, unless another call is using it: each holds a shared lock, and only the last
    one can have it alone.
    """
    with ExitStack() as stack:
        lock = _shared_lock()
        if lock is not None:
            stack.callback(os.close, lock)
            stack.enter_context(undone_on_failure(lambda: _delete_unused(host, name, lock)))
        bridge = links.get(host, name)
        if bridge is None:
            bridge = _create(host, name, mtu=mtu, vlan_filtering=vlan_filtering)
        yield _adapt(host, bridge, vlan_filtering=vlan_filtering, promiscuous=promiscuous)
        if bridge.group == _UNFINISHED:
            what = f"keep bridge {name}"
            host.submit(
                links.change(name, ("IFLA_GROUP", 0), what=what)._replace(tolerate=links.GONE)
            )


def _create(host: Netlink, name: str, *, mtu: int, vlan_filtering: bool) -> Link:
    """Create the bridge; its hardware address is chosen here and stays (W-BR15)."""
    mac = random_mac()
    try:
        host.submit(
            links.create_bridge(
                name, mtu=mtu, mac=mac, vlan_filtering=vlan_filtering, group=_UNFINISHED
            )
        )
    except KernelError as error:
        if error.errno != errno.EOPNOTSUPP or not vlan_filtering:
            raise
        msg = f"bridge {name} cannot have VLANs: this kernel does not filter them"
        details = "vlan and vlanTrunk need CONFIG_BRIDGE_VLAN_FILTERING"
        raise CniError(Code.INTERNAL, msg, details) from error
    bridge = links.get(host, name)
    if bridge is None:
        raise KernelError(f"look up bridge {name}", errno.ENODEV)
    return bridge


def _adapt(host: Netlink, bridge: Link, *, vlan_filtering: bool, promiscuous: bool) -> Link:
    """Make of what is there what the configuration needs.

    VLAN filtering is turned on where it is needed and off (W-BR6); router advertisements are not
    accepted (CVE-2020-10749).
    """
    name = bridge.name
    if bridge.kind != "bridge":
        msg = f'"{name}" already exists but is not a bridge'
        kind = bridge.kind or "physical"
        details = f'it is of kind "{kind}": set the key "bridge" to another name'
        raise CniError(Code.INVALID_CONFIG, msg, details)
    requests = []
    if vlan_filtering and not bridge.vlan_filtering:
        requests.append(links.enable_vlan_filtering(name))
    if promiscuous and not bridge.promiscuity:
        requests.append(links.set_flags(name, links.IFF_PROMISC, links.IFF_PROMISC))
    if not bridge.up:
        sysctl.write_if_present(f"net/ipv6/conf/{name}/accept_ra", "0")
        requests.append(links.set_up(name))
    host.submit(*requests)
    return bridge


def _shared_lock() -> int | None:
    """A shared lock on the own namespace's file, which needs no file of ours.

    An ADD that takes its bridge away has it alone for a moment, and then that is waited for. None
    when somebody keeps it for himself: ADD goes on, only its bridge will stay.
    """
    lock = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                os.close(lock)
                return None
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return lock


def _delete_unused(host: Netlink, name: str, lock: int) -> None:
    if not try_lock(lock):
        return
    bridge = links.get(host, name)
    if bridge is None or bridge.kind != "bridge" or bridge.group != _UNFINISHED:
        return
    if not links.count_ports(host, bridge):
        links.delete(host, name)


def ensure_vlan_interface(host: Netlink, bridge: Link, vlan: int, *, keep_default: bool) -> Link:
    """`<bridge>.<vlan>`: the host's own interface in that VLAN of the bridge, up.

    A veth pair, whose other end is a port of the bridge with that VLAN. Two calls that create it at
    once both succeed (W-BR11).
    """
    name = vlan_interface_name(bridge.name, vlan)
    # Its port's name is derived from its own, and always fits.
    port = f"veth{sha512(name.encode()).hexdigest()[: _IFNAME_BYTES - len('veth')]}"
    have = links.get(host, name)
    if have is None:
        try:
            host.submit(links.create_veth(VethEnd(name), VethEnd(port), mtu=bridge.mtu))
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
        have = links.get(host, name)
    peer = links.get(host, port)
    if have is None or peer is None or have.kind != "veth":
        msg = f'"{name}" already exists but is not an interface of bridge {bridge.name}'
        raise CniError(Code.INTERNAL, msg, "a gateway in a VLAN needs that name")
    sysctl.write_if_present(f"net/ipv6/conf/{name}/accept_ra", "0")
    sysctl.write_if_present(f"net/ipv6/conf/{port}/accept_ra", "0")
    host.submit(
        links.change(port, ("IFLA_MASTER", bridge.ifindex), what=f"enslave {port}"),
        links.set_up(port),
        links.set_up(name),
    )
    tag_port(host, peer, vlan, (), keep_default=keep_default)
    return have


def vlan_interface_name(bridge: str, vlan: int) -> str:
    """Raises CniError 7 when the name does not fit."""
    name = f"{bridge}.{vlan}"
    if len(os.fsencode(name)) > _IFNAME_BYTES:
        msg = f'bridge "{bridge}" is too long a name for a gateway in VLAN {vlan}'
        details = f"the interface {name} would have more than {_IFNAME_BYTES} bytes"
        raise CniError(Code.INVALID_CONFIG, msg, details)
    return name


def tag_port(
    host: Netlink, port: Link, vlan: int, trunk: Iterable[tuple[int, int]], *, keep_default: bool
) -> None:
    """Set the port's VLANs: `vlan` untagged, the ranges of `trunk` tagged (plugins.md 3.1.2).

    Without `vlan` a trunk port keeps VLAN 1 as its untagged one.
    """
    ranges = tuple(trunk)
    requests = []
    if not keep_default:
        for vid, _ in links.bridge_vlans(host, port.ifindex):
            requests.append(links.delete_vlans(port.ifindex, port.name, vid, vid))
    untagged = links.BRIDGE_VLAN_PVID | links.BRIDGE_VLAN_UNTAGGED
    requests += [links.add_vlans(port.ifindex, port.name, *one) for one in ranges]
    own = vlan or 1
    if vlan or ranges:
        requests.append(links.add_vlans(port.ifindex, port.name, own, own, untagged))
    host.submit(*requests)


def ensure_gateways(host: Netlink, link: Link, gateways: Iterable[Cidr], *, force: bool) -> None:
    """Give the link each gateway address; `force` replaces one that is in the way. Raises CniError.

    For IPv4 any other address is in the way, for IPv6 one of an overlapping subnet.
    """
    have = [one.address for one in addresses.dump(host, link.ifindex)]
    wanted = list(gateways)
    for gateway in wanted:
        if gateway in have:
            continue
        for other in in_the_way(gateway, wanted, have):
            if not force:
                msg = f'"{link.name}" already has an IP address different from {gateway}'
                details = f"it has {other}; forceAddress replaces it"
                raise CniError(Code.INTERNAL, msg, details)
            gone = frozenset({errno.EADDRNOTAVAIL})
            host.submit(addresses.delete(link.ifindex, link.name, other, gone))
        flags = addresses.IFA_F_NODAD if gateway.version == 6 else 0
        request = addresses.add(
            link.ifindex, link.name, gateway, flags=flags, tolerate=links.PRESENT
        )
        host.submit(request)


def in_the_way(gateway: Cidr, wanted: Iterable[Cidr], have: Iterable[Cidr]) -> list[Cidr]:
    """The addresses of a link that one of its gateways would replace."""
    own = set(wanted)
    return [
        one
        for one in have
        if one.version == gateway.version
        and one not in own
        and (one.version == 4 or one.network.overlaps(gateway.network))
    ]


def random_mac() -> str:
    """A locally administered unicast address."""
    first, *rest = os.urandom(_MAC_BYTES)
    first = (first | _LOCALLY_ADMINISTERED) & ~_MULTICAST
    return ":".join(f"{one:02x}" for one in (first, *rest))
