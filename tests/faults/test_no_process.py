"""A host that has no process left to give: the call says so, and is to be tried again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.host import BIN, refusal
from fixtures.leaks import leaks
from fixtures.reference import reference

if TYPE_CHECKING:
    from fixtures.host import Host

# By what the message has in it.
CONFIGS: dict[str, dict[str, Any]] = {
    "/iptables: Resource temporarily unavailable": {"ipMasq": True, "ipMasqBackend": "iptables"},
    "/opt/cni/bin/elsewhere": {"ipam": {"type": "elsewhere"}},
}


@pytest.mark.parametrize("program", CONFIGS)
def test_no_process(host: Host, program: str) -> None:
    """[W-G5] fork refused: code 11, which names what could not be started, and nothing is left."""
    host.stop_serving()
    peer = reference(host, "host-local")
    host.run("cp", f"{peer.path}/host-local", "/opt/cni/bin/elsewhere")
    container = host.container("c1")
    environ = container.environ("ADD", path=f"/opt/cni/bin:{BIN}") | {"CNI_PY_SOCKET": ""}
    refused = "inject=vfork,clone,clone3,fork:error=EAGAIN"
    strace = ("strace", "-qq", "-o", "/dev/null", "-e", refused)
    stdin = json.dumps(l3(**CONFIGS[program]))
    error = refusal(host.run(*strace, str(BIN / "bridge"), stdin=stdin, env=environ, check=False))
    assert (error["code"], program in error["msg"]) == (11, True), error
    assert leaks(host) == []
