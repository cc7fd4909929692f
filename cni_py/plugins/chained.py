"""What the plugins share that come after another one in a list: they take its result on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cni_py.spec.results import IPConfig, Result


def container_ips(result: Result, ifname: str) -> list[IPConfig]:
    """The addresses of the container's interface, and those that name no interface (6.1.1)."""
    inside = {
        index for index, one in enumerate(result.interfaces) if one.name == ifname and one.sandbox
    }
    places = range(len(result.interfaces))
    return [
        one
        for one in result.ips
        if one.interface is None or one.interface not in places or one.interface in inside
    ]
