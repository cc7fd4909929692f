"""Everything that a call would otherwise do first.

The server's parent imports all plugins and goes through a call's motions until the interpreter has
specialised the code. A worker does so once more while it waits: each page of memory that it writes
to, be it by counting a reference, is copied from its parent's then and not during the call.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cni_py import skel
from cni_py.ipam import host_local
from cni_py.kernel import addresses, firewalld, links, routes
from cni_py.kernel.netlink import Netlink
from cni_py.kernel.nftables import nftables
from cni_py.plugins import bridge, bridge_config, masquerade
from cni_py.spec.addresses import default_route
from cni_py.spec.attachment import Attachment
from cni_py.spec.call import gate_version, read_request, typed_call
from cni_py.spec.conversion import from_wire, to_wire
from cni_py.spec.environment import read_environment
from cni_py.spec.errors import CniError
from cni_py.spec.results import Route

if TYPE_CHECKING:
    from cni_py.kernel.netlink import Request
    from cni_py.spec.results import Result

# CPython 3.11 specialises a function after some eight calls, a loop after as many turns.
_REHEARSALS = 16

# What only some calls need, and then at once; a caller's root has no modules of this server's.
_LATER = (
    "cni_py.dhcp.store",
    "cni_py.kernel.deferred",
    "cni_py.kernel.messages",
    "cni_py.spec.collection",
    "copy",
    "dataclasses",
    "encodings.idna",
    "heapq",
    "traceback",
)

_MEMORY = "/dev/shm"  # noqa: S108 - the folder made there has a name nobody can guess

_ENVIRON = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "rehearsal",
    "CNI_NETNS": "/run/netns/rehearsal",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
_CONFIG = {
    "cniVersion": "1.0.0",
    "name": "rehearsal",
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
}
_IPAM = {"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24"}]]}
_RESULT = {
    "cniVersion": "1.0.0",
    "interfaces": [
        {"name": "cni0", "mac": "02:00:00:00:00:01"},
        {"name": "veth0", "mac": "02:00:00:00:00:02"},
        {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/rehearsal"},
    ],
    "ips": [{"interface": 2, "address": "192.0.2.2/24", "gateway": "192.0.2.1"}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "192.0.2.1"}],
}


@cache
def load() -> None:
    """Load all plugins and go through the motions until the code is specialised; once."""
    for executable in skel.EXECUTABLES.values():
        import_module(executable.module)
    for name in _LATER:
        import_module(name)
    firewalld.preload()
    for _ in range(_REHEARSALS):
        rehearse()


def rehearse() -> None:
    """Do what an ADD does without changing anything that anybody sees.

    Addresses are given out in a folder that is gone afterwards; the kernel is asked, not told. What
    keeps it from being done, be it a full disk, only leaves the first call slower.
    """
    try:
        _rehearse()
    except (CniError, OSError) as error:
        sys.stderr.write(f"cni-py: cannot rehearse: {error}\n")


def _rehearse() -> None:
    environment = read_environment(_ENVIRON)
    request = read_request(environment, _ENVIRON, json.dumps(_CONFIG).encode())
    request = gate_version(request, skel.EXECUTABLES["bridge"].versions)
    bridge.status(typed_call(request, bridge_config.Config))
    with TemporaryDirectory(prefix="rehearsal-", dir=_scratch()) as folder:
        request.raw["ipam"] = {**_IPAM, "dataDir": folder}
        result = host_local.add(typed_call(request, host_local.Config))
        host_local.delete(typed_call(request, host_local.DelConfig))
    json.dumps(to_wire(from_wire(_RESULT, "1.0.0"), "1.0.0"), indent=4)
    with Netlink() as host:
        for name in ("lo", "lo", "lo"):
            link = links.get(host, name)
        if link is not None:
            addresses.dump(host, link.ifindex)
        for one in _requests(result):
            host.encode(one, 0)
    addressed = [one.address for one in result.ips]
    json.dumps({"nftables": masquerade.describe(request.attachment, addressed)})
    try:
        nftables().element("inet cni_py", "masq4", "192.0.2.2")
    except CniError:
        # No libnftables: a call that needs it says so.
        return


def _scratch() -> str | None:
    """A folder in memory, where there is one: on a disk each rehearsal would take 20 ms."""
    return _MEMORY if os.access(_MEMORY, os.W_OK) else None


def _requests(result: Result) -> list[Request]:
    """The requests of an ADD."""
    attachment = Attachment("rehearsal", "rehearsal", "eth0")
    host = links.VethEnd(attachment.host_ifname, master=1, up=True)
    route = Route(default_route(4), result.ips[0].gateway)
    return [
        links.create_veth(host, links.VethEnd("eth0", netns_fd=0), mtu=0),
        links.set_port("veth0", attachment.label(254), hairpin=False, isolated=False),
        addresses.add(1, "eth0", result.ips[0].address),
        links.set_up("eth0"),
        routes.add(1, "eth0", route, route.gw),
        links.change("eth0", ("IFLA_ADDRESS", "02:00:00:00:00:03")),
    ]
