"""What attachments by a veth pair have in common, whether its host end is on a bridge or not."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from cni_py.ipam import delegation
from cni_py.kernel import links, sysctl
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.netns import open_netns
from cni_py.kernel.steps import step
from cni_py.spec.addresses import Cidr
from cni_py.spec.config import IpamType, PluginConfig
from cni_py.spec.errors import CniError, Code, refusals

from . import interface, masquerade, veth
from . import mtu as mtu_key
from .hardware_address import Args, Mac
from .mtu import Mtu
from .teardown import Teardown, detaching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cni_py.kernel.links import Link
    from cni_py.spec.call import Call
    from cni_py.spec.collection import Collection
    from cni_py.spec.results import Result

    from .evidence import Evidence

_MIN_MTU, _MAX_MTU = 68, 65535


class PairedConfig(PluginConfig, frozen=True, kw_only=True):
    """The keys of every plugin that makes a pair."""

    ip_masq: bool = False
    """What leaves the network gets the host's address."""
    ip_masq_backend: str | None = None
    """`nftables` or `iptables`; none: nftables where it is there."""
    ip_masq_exclude: tuple[Cidr, ...] = ()
    """With `ipMasq`: networks where the container's own address stays, beside its subnet."""
    mtu: Mtu = 0
    """Of both ends (and of a new bridge), 68 to 65535, or `auto`; 0: the kernel's."""
    ipam: IpamType = IpamType()
    """Who gives out addresses: `ipam.type` names the IPAM plugin."""
    args: Args = Args()
    """What the runtime passes in `args.cni`."""
    runtime_config: Mac = Mac()
    """What the capabilities bring."""


C = TypeVar("C", bound=PairedConfig)


def require_mtu(mtu: int) -> None:
    """Raises CniError 7 for what no veth can have."""
    mtu_key.require(mtu, _MIN_MTU, _MAX_MTU)


def masquerade_mistakes(config: PairedConfig) -> Iterator[CniError]:
    """A backend of an unknown name, where something is to masquerade."""
    if config.ip_masq and config.ipam.type:
        check = masquerade.require_known
        yield from refusals("ipMasqBackend", check, config.ip_masq_backend)


def backend_of(config: PairedConfig) -> str:
    """What is to masquerade, `""` for nothing. Raises CniError when it cannot be used."""
    if not config.ip_masq or not config.ipam.type:
        return ""
    backend = masquerade.choose_backend(config.ip_masq_backend)
    masquerade.require_backend(backend)
    return backend


# ADD.


def addresses_of(result: Result, index: int) -> tuple[Cidr, ...]:
    """The container's addresses; its interface's place in the result is `index`."""
    return tuple(one.address for one in result.ips if one.interface in (None, index))


def enable_forwarding(versions: Iterable[int]) -> None:
    """Have the host forward the IP versions. Raises KernelError."""
    for version in versions:
        sysctl.ensure(FORWARDING[version], "1")


def require_forwarding(versions: Iterable[int], whose: str, is_needed: Callable[[], bool]) -> None:
    """Raises CniError 51 where the host does not forward an IP version that containers have.

    Whether there are any is asked only then.
    """
    for version in sorted(versions):
        key = FORWARDING[version]
        if sysctl.read(key) == "0" and is_needed():
            msg = f"IPv{version} is not forwarded: the containers of {whose} reach no other network"
            # No ADD may come: the kubelet sends none while a node is NotReady.
            details = f"`sysctl -w {key.replace('/', '.')}=1`, or the next ADD, sets it to 1"
            raise CniError(Code.LIMITED_CONNECTIVITY, msg, details)


FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


# DEL and GC.


def tear_down(
    call: Call[C],
    index: int,
    *,
    is_of_network: Callable[[Netlink, Link], bool],
    also: Iterable[Callable[[frozenset[str] | None], None]] = (),
) -> None:
    """Undo an ADD, as much of it as is there. The address goes last: it may be given out again.

    `index` is the container interface's place in a result. `is_of_network` tells of a host end that
    another maker has made whether it belongs to the network. `also` takes down what else there is,
    by what the label has noted.
    """
    config, attachment = call.config, call.attachment
    # That of an ADD is an earlier plugin's.
    prev = call.prev_result if call.verb == "DEL" else None
    has: frozenset[str] | None = None
    held = interface.Held()
    with detaching(call) as teardown:
        with ExitStack() as stack, Netlink() as host:
            container = None
            with teardown.step():
                container = open_netns(call.netns) if call.netns else None
                if container is not None:
                    stack.enter_context(container)
            has = veth.recorded(links.get(host, attachment.host_ifname))
            # Of an attachment that is gone, or was never ours, everything is looked for.
            has_backend = config.ip_masq if has is None else not has.isdisjoint(masquerade.BACKENDS)
            if container is not None and has_backend:
                with teardown.step():
                    held = interface.held_inside(container, call.ifname)
            with teardown.step(), step("veth"):
                if not veth.delete(host, attachment) and container is not None:
                    names = frozenset(one.name for one in prev.interfaces) if prev else frozenset()
                    veth.delete_foreign(
                        host,
                        container,
                        call.ifname,
                        lambda port: port.name in names or is_of_network(host, port),
                    )
        if prev is not None and prev.ips:
            held = interface.Held(addresses_of(prev, index), known=True)
        for other in also:
            with teardown.step():
                other(has)
        if has is None or has_backend:
            with teardown.step(), step("masquerade"):
                certain, possible = _backends(config, has)
                masquerade.tear_down(attachment, held, certain=certain, possible=possible)


def _backends(
    config: PairedConfig, has: frozenset[str] | None
) -> tuple[frozenset[str], frozenset[str]]:
    """The backends that an ADD used certainly and possibly, by its record or by what is set now."""
    if has is not None:
        return has & masquerade.BACKENDS, frozenset()
    if not config.ip_masq or not config.ipam.type:
        return frozenset(), frozenset({masquerade.NFTABLES})
    return frozenset({masquerade.choose_backend(config.ip_masq_backend)}), masquerade.BACKENDS


def collect(
    call: Call[C],
    collection: Collection,
    evidence: Evidence,
    also: Iterable[Callable[[], None]] = (),
) -> None:
    """Take away what the collection takes. A pair lives as long as the container's namespace."""
    names = {one.host_ifname for one in collection.valid or ()}
    teardown = Teardown()
    with teardown.step(), Netlink() as host:
        stale = [
            link.name
            for link in veth.of_network(host, collection.network)
            if link.name not in names
            and collection.takes(f"veth pair {link.name}", link.alias or f"{collection.prefix}")
        ]
        links.delete_together(host, stale)
    # Whatever the configuration says now: an earlier one may have set them up.
    for other in also:
        with teardown.step():
            other()
    with teardown.step():
        masquerade.collect(collection, evidence)
    if call.config.ipam.type:
        with teardown.step():
            delegation.ipam_gc(call.request, call.config.ipam.type, collection)
    teardown.finish()
