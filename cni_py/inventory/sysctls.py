"""The kernel parameters that tuning set in containers, and what they are now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from cni_py.kernel import sysctl
from cni_py.kernel.netns import open_netns
from cni_py.plugins import tuning_sysctl
from cni_py.spec.errors import CniError

from .model import Sysctl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cni_py.spec.attachment import Attachment

    from .configurations import Configured
    from .known import Known
    from .model import Attached

_TUNING = "tuning"


def with_sysctls(
    attachments: Sequence[Attached],
    configured: Sequence[Configured],
    known: Mapping[Attachment, Known],
) -> tuple[Attached, ...]:
    """The attachments with their parameters: of the chain in the cache, else of the network's."""
    chains = {one.network.name: one.plugins for one in reversed(configured)}
    found = []
    for one in attachments:
        cached = known[one.attachment].cached if one.attachment in known else None
        own = None if cached is None else cached.configured
        plugins = chains.get(one.network, ()) if own is None else own.plugins
        wanted = _wanted(plugins, one.ifname)
        found.append(replace(one, sysctls=_read(one, wanted)) if wanted else one)
    return tuple(found)


def _wanted(plugins: Iterable[Mapping[str, Any]], ifname: str) -> dict[str, str]:
    """The values by path below /proc/sys; a configuration that is wrong gives none."""
    found: dict[str, str] = {}
    for one in plugins:
        settings = one.get("sysctl")
        if one.get("type") != _TUNING or not isinstance(settings, dict):
            continue
        texts = {key: value for key, value in settings.items() if isinstance(value, str)}
        try:
            parsed = tuning_sysctl.parse(texts, ifname)
        except CniError:
            continue
        found |= {path: it.value for path, it in parsed.items()}
    return found


def _read(one: Attached, wanted: Mapping[str, str]) -> tuple[Sysctl, ...]:
    live: dict[str, str | None] = dict.fromkeys(wanted)
    if one.namespace is not None and one.inside is not None:
        try:
            container = open_netns(one.namespace.path)
            if container is not None:
                with container, container.entered():
                    live = {key: _value(key) for key in wanted}
        except CniError:
            pass
    return tuple(Sysctl(key=key, wanted=wanted[key], live=live[key]) for key in wanted)


def _value(key: str) -> str | None:
    try:
        return sysctl.read(key)
    except CniError:
        return None
