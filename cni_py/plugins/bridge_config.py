"""bridge's configuration: its keys, and what types cannot say of them (plugins.md 3.1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from cni_py.spec.errors import CniError, Code, refusals, require_none
from cni_py.spec.names import validate_device_name, validate_new_ifname

from . import bridge_device, interface, masquerade
from . import mtu as mtu_key
from .hardware_address import mac_mistakes, requested_mac
from .paired import PairedConfig, backend_of, masquerade_mistakes, require_mtu

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni_py.spec.call import Call

_MAX_VLAN = 4094


class VlanTrunk(msgspec.Struct, frozen=True, kw_only=True):
    """Tagged VLANs: the range from minID to maxID, the one id, or both."""

    min_id: int | None = msgspec.field(default=None, name="minID")
    """The first VLAN of a range, 1 to 4094; with `maxID`."""
    max_id: int | None = msgspec.field(default=None, name="maxID")
    """The last VLAN of a range, 1 to 4094; with `minID`."""
    id: int | None = None
    """A single VLAN, 1 to 4094."""


class Config(PairedConfig, frozen=True, kw_only=True):
    """bridge's configuration; without an IPAM type the container's interface has no address."""

    bridge: str = "cni0"
    """The bridge's name; created if it is missing."""
    is_gateway: bool = False
    """The bridge gets the gateways' addresses, and the host forwards."""
    is_default_gateway: bool = False
    """As `isGateway`, and containers get default routes through the bridge."""
    force_address: bool = False
    """Replace another address that the bridge has."""
    hairpin_mode: bool = False
    """A container reaches itself through the bridge."""
    promisc_mode: bool = False
    """The bridge receives everything; not with `hairpinMode`."""
    vlan: int = 0
    """The container's untagged VLAN, to 4094; its gateway is on `<bridge>.<vlan>`. 0: none."""
    vlan_trunk: tuple[VlanTrunk, ...] | None = None
    """The container's tagged VLANs."""
    preserve_default_vlan: bool = False
    """With VLANs: keep the bridge's default VLAN on the port."""
    macspoofchk: bool = False
    """Drop frames whose source is not the container's address."""
    enabledad: bool = False
    """Detect duplicate IPv6 addresses, and wait for that."""
    disable_container_interface: bool = False
    """Leave the container's end down; not with IPAM."""
    port_isolation: bool = False
    """The container reaches no other isolated port."""
    overflow: Literal["", "routed"] = ""
    """`routed`: containers beyond the bridge's 1,023 ports are routed."""


class Plan(NamedTuple):
    """What the configuration asks for, checked."""

    mac: str
    mtu: int
    trunk: tuple[tuple[int, int], ...]
    gateway: bool
    backend: str

    def tagged(self, config: Config) -> bool:
        """Whether the port has VLANs."""
        return bool(config.vlan or self.trunk)


def plan_of(call: Call[Config]) -> Plan:
    """Check what types cannot say. Raises CniError 7, or 4 for CNI_ARGS."""
    config = call.config
    if call.verb == "ADD":
        validate_new_ifname(call.ifname)
    require_none(mistakes(call))
    mtu = mtu_key.of(call)
    require_mtu(mtu)
    gateway = config.is_gateway or config.is_default_gateway
    backend = backend_of(config)
    if config.macspoofchk:
        masquerade.require_backend(masquerade.NFTABLES)
    mac = requested_mac(config.runtime_config, config.args, call.args)
    return Plan(mac, mtu, _trunk(config.vlan_trunk or ()), gateway, backend)


def mistakes(call: Call[Config]) -> Iterator[CniError]:
    """What ADD refuses on every host."""
    config = call.config
    yield from refusals("bridge", validate_device_name, config.bridge, "bridge")
    if config.hairpin_mode and config.promisc_mode:
        msg = "cannot set hairpin mode and promiscuous mode at the same time"
        details = "hairpinMode and promiscMode are both true"
        yield CniError(Code.INVALID_CONFIG, msg, details, key="promiscMode")
    if config.ipam.type and config.disable_container_interface:
        msg = "cannot use IPAM when DisableContainerInterface flag is set"
        details = f'ipam.type is "{config.ipam.type}"'
        yield CniError(Code.INVALID_CONFIG, msg, details, key="disableContainerInterface")
    if not 0 <= config.vlan <= _MAX_VLAN:
        msg = f"invalid VLAN ID {config.vlan} (must be between 0 and {_MAX_VLAN})"
        yield CniError(Code.INVALID_CONFIG, msg, "in the key vlan", key="vlan")
    yield from refusals("mtu", require_mtu, mtu_key.fixed(config.mtu))
    yield from refusals("ipam", interface.require_reportable, call)
    gateway = config.is_gateway or config.is_default_gateway
    if gateway and config.vlan and config.ipam.type:
        name = bridge_device.vlan_interface_name
        yield from refusals("bridge", name, config.bridge, config.vlan)
    yield from refusals("overflow", _require_routable, config, gateway=gateway)
    yield from masquerade_mistakes(config)
    yield from mac_mistakes(call)
    yield from refusals("vlanTrunk", _trunk, config.vlan_trunk or ())


def _require_routable(config: Config, *, gateway: bool) -> None:
    """Raises CniError 7 where containers cannot be routed to when the bridge is full."""
    if not config.overflow:
        return
    msg = 'overflow is "routed", '
    if not gateway or not config.ipam.type:
        msg += "which needs addresses and a gateway"
        raise CniError(Code.INVALID_CONFIG, msg, "set ipam.type, and isGateway or isDefaultGateway")
    if config.vlan or config.vlan_trunk is not None or config.port_isolation:
        msg += "which goes neither with VLANs nor with portIsolation"
        raise CniError(Code.INVALID_CONFIG, msg, "only ports of a bridge have those")


def _trunk(configured: Sequence[VlanTrunk]) -> tuple[tuple[int, int], ...]:
    """The union of the entries as ascending ranges that neither touch nor overlap."""
    vids: set[int] = set()
    for position, one in enumerate(configured):
        vids.update(_vids(one, f"vlanTrunk[{position}]"))
    ranges: list[tuple[int, int]] = []
    for vid in sorted(vids):
        if ranges and ranges[-1][1] == vid - 1:
            ranges[-1] = (ranges[-1][0], vid)
        else:
            ranges.append((vid, vid))
    return tuple(ranges)


def _vids(one: VlanTrunk, path: str) -> set[int]:
    lowest, highest = one.min_id, one.max_id
    problem = ""
    if lowest is None and highest is not None:
        problem = "minID and maxID should be configured simultaneously, minID is missing"
    elif highest is None and lowest is not None:
        problem = "minID and maxID should be configured simultaneously, maxID is missing"
    elif lowest is not None and not 1 <= lowest <= _MAX_VLAN:
        problem = "incorrect trunk minID parameter"
    elif highest is not None and not 1 <= highest <= _MAX_VLAN:
        problem = "incorrect trunk maxID parameter"
    elif lowest is not None and highest is not None and highest < lowest:
        problem = "minID is greater than maxID in trunk parameter"
    elif one.id is not None and not 1 <= one.id <= _MAX_VLAN:
        problem = "incorrect trunk id parameter"
    if problem:
        details = f"{path} has minID {lowest}, maxID {highest}, id {one.id}: 1 to {_MAX_VLAN}"
        raise CniError(Code.INVALID_CONFIG, problem, details, key=path)
    vids = set() if one.id is None else {one.id}
    return vids if lowest is None or highest is None else vids | set(range(lowest, highest + 1))
