"""Which backends there are, by the type that the network's configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni_py.spec.errors import CniError, Code

from .settings import settings
from .vetting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .backend import Backend
    from .underlay import Chosen

    Maker = Callable[[Mapping[str, Any], Chosen, frozenset[int]], Backend]


def make(configured: Mapping[str, Any], chosen: Chosen, versions: frozenset[int]) -> Backend:
    """The backend of `Backend` in the network's configuration, in the thread's namespace.

    `versions` are the IP versions of the cluster's networks. As for flannel the case of `Type` does
    not matter. Raises CniError 7 for a type that there is not, and for keys that cannot be.
    """
    kind = next((one for key, one in configured.items() if str(key).lower() == "type"), None)
    maker = MAKERS.get(kind.lower()) if isinstance(kind, str) else None
    if maker is None:
        msg = f"the network's Backend cannot be used: its Type is {quoted(kind)}"
        details = f"there are {', '.join(sorted(MAKERS))}"
        raise CniError(Code.INVALID_CONFIG, msg, details, key="Backend.Type")
    return maker(configured, chosen, versions)


# Each loads what it needs only when it is used.


def _aws_vpc(configured: Mapping[str, Any], chosen: Chosen, versions: frozenset[int]) -> Backend:
    from .aws_vpc import AwsVpcBackend, AwsVpcSettings

    return AwsVpcBackend(settings(AwsVpcSettings, configured), chosen, versions)


def _webhook(configured: Mapping[str, Any], chosen: Chosen, versions: frozenset[int]) -> Backend:
    from .webhook import WebhookBackend, WebhookSettings

    return WebhookBackend(settings(WebhookSettings, configured), chosen, versions)


def _vxlan(configured: Mapping[str, Any], chosen: Chosen, versions: frozenset[int]) -> Backend:
    from .vxlan import VxlanBackend, VxlanSettings

    return VxlanBackend(settings(VxlanSettings, configured), chosen, versions)


def _host_gw(configured: Mapping[str, Any], chosen: Chosen, versions: frozenset[int]) -> Backend:
    from .host_gw import HostGatewayBackend

    del configured
    return HostGatewayBackend(chosen, versions)


def _ipip(configured: Mapping[str, Any], chosen: Chosen, versions: frozenset[int]) -> Backend:
    from .ipip import IpipBackend, IpipSettings

    return IpipBackend(settings(IpipSettings, configured), chosen, versions)


def _wireguard(configured: Mapping[str, Any], chosen: Chosen, versions: frozenset[int]) -> Backend:
    from .wireguard import WireGuardBackend, WireGuardSettings

    return WireGuardBackend(settings(WireGuardSettings, configured), chosen, versions)


MAKERS: dict[str, Maker] = {
    "aws-vpc": _aws_vpc,
    "host-gw": _host_gw,
    "ipip": _ipip,
    "vxlan": _vxlan,
    "webhook": _webhook,
    "wireguard": _wireguard,
}
