"""A host that has no process left to give: the call says so, and is to be tried again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.configs import l3
from fixtures.dump import differences, dump
from fixtures.host import BIN, refusal
from fixtures.reference import reference

if TYPE_CHECKING:
    from fixtures.host import Host

CONFIGS: dict[str, dict[str, Any]] = {
    "/usr/sbin/iptables": {"ipMasq": True, "ipMasqBackend": "iptables"},
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
    strace = (
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=vfork,clone,clone3,fork:error=EAGAIN",
    )
    before = dump(host)
    stdin = json.dumps(l3(**CONFIGS[program]))
    error = refusal(host.run(*strace, str(BIN / "bridge"), stdin=stdin, env=environ, check=False))
    assert (error["code"], program in error["msg"]) == (11, True), error
    assert differences(before, dump(host)) == ""
