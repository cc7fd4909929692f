"""The environment, CNI_ARGS in it, and the names that are derived from it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni_py.ipam import dhcp, static
from cni_py.plugins.hardware_address import Args, Mac, requested_mac
from cni_py.spec.args import load_args
from cni_py.spec.attachment import Attachment
from cni_py.spec.environment import read_environment
from cni_py.spec.errors import CniError
from cni_py.spec.names import MAX_IFNAME_BYTES, validate_device_name, validate_new_ifname
from fuzz.target import require_reportable

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = (
    *("CNI_COMMAND=", "CNI_CONTAINERID=", "CNI_NETNS=", "CNI_IFNAME=", "CNI_ARGS=", "CNI_PATH="),
    *("IgnoreUnknown=1", "IP=10.1.0.5/24", "GATEWAY=10.1.0.1", "MAC=02:00:00:00:00:01", ";", "="),
    *("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "CNI_NETNS_OVERRIDE=", "K8S_POD_NAME="),
)
_BASE = "CNI_COMMAND=ADD\0CNI_CONTAINERID=c1\0CNI_NETNS=/n\0CNI_IFNAME=eth0\0CNI_PATH=/bin\0"
_ARGS = (
    "",
    "IgnoreUnknown=true;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=c",
    "IP=10.1.0.5/24,fd00::5/64;GATEWAY=10.1.0.1,fd00::1",
    "MAC=02:00:00:00:00:01",
    "A=B=C;;",
)


def seeds() -> Iterator[bytes]:
    for args in _ARGS:
        yield f"{_BASE}CNI_ARGS={args}".encode()
    yield b"CNI_COMMAND=\xff\0CNI_IFNAME=\xff\xfe"


def run(data: bytes) -> None:
    pairs = (one.split("=", 1) for one in os.fsdecode(data).split("\0") if "=" in one[1:])
    environ = dict(pairs)
    args = environ.get("CNI_ARGS", "")
    for one in (
        lambda: read_environment(environ),
        lambda: load_args(args, ("IP", "GATEWAY")),
        lambda: static._from_args(args),
        lambda: requested_mac(Mac(), Args(), args),
        lambda: validate_device_name(args, "key"),
        lambda: dhcp._provided(
            dhcp._Ipam(provide=(dhcp._Provide(option="12", from_arg="A"),)), args
        ),
        lambda: _names(environ),
    ):
        try:
            one()
        except CniError as error:
            require_reportable(error, data)


def _names(environ: dict[str, str]) -> None:
    """What is derived from names that were let through is fit for the kernel and for files."""
    environment = read_environment(environ)
    if not (environment.container_id and environment.ifname):
        return
    attachment = Attachment("net", environment.container_id, environment.ifname)
    assert len(attachment.host_ifname) <= MAX_IFNAME_BYTES
    assert len(os.fsencode(attachment.label(255))) <= 255
    assert "/" not in attachment.key
    validate_new_ifname(environment.ifname)
    environment.ifname.encode()
