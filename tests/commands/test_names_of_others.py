"""Names that others give are not UTF-8: the commands that look go on, and change nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fixtures.cnitool import cni_py, configure
from fixtures.configs import host_local

if TYPE_CHECKING:
    from fixtures.host import Host

BRIDGE = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True}
_MAKE = r"""
folder=/var/lib/cni/networks/$(printf 'n\377\033[31m')
mkdir "$folder"
printf 'lost\r\neth0' > "$folder/10.9.9.9"
ip link add "$(printf 'o\377')" type bridge
printf junk > /run/cni-py/masquerade/junk.json
"""


def test_looking(host: Host) -> None:
    configure(host, "net", {**BRIDGE, "ipam": host_local()})
    host.container("c1")
    cni_py(host, "add", "net", "c1")
    host.run("sh", "-c", _MAKE)
    seen = json.loads(cni_py(host, "show", "--json", check=False).stdout)
    assert {one["network"] for one in seen["attachments"]} == {"net", "n\\udcff\x1b[31m"}
    for arguments in (
        ("show", "--full"),
        ("graph",),
        ("graph", "--format", "svg"),
        ("trace", "host", "10.1.2.2"),
        ("ipam", "list"),
        ("doctor", "--bundle", "/run/report.tar.gz"),
        ("gc", "net", "--dry-run"),
    ):
        outcome = cni_py(host, *arguments, check=False)
        assert outcome.status in (0, 1), outcome
        assert outcome.stdout.replace("\n", "").isprintable(), outcome
        assert "is not UTF-8" not in outcome.stderr, outcome
    assert "junk.json" in host.run("ls", "/run/cni-py/masquerade").stdout
    cni_py(host, "del", "net", "c1")
    host.run("sh", "-c", "rm -r /var/lib/cni/networks/n* /run/cni-py/masquerade/junk.json")
