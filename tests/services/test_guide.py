"""docs/discovery.md: every example runs, in order, as one program."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from cni_py.services.skydns import Layout
from fixtures.host import ROOT
from fixtures.http_servers import HttpServer

from .subjects import InSqlite, instance

if TYPE_CHECKING:
    from pathlib import Path


def test_examples(tmp_path: Path) -> None:
    subject = InSqlite(tmp_path / "state")
    subject.layout = Layout()
    server = HttpServer(lambda *_: (200, {}, b"pong"))
    port = int(server.url.rpartition(":")[2])

    async def register() -> None:
        async with subject.open() as registry, registry.registrant("n1", 300) as registrant:
            await registrant.register(instance(addresses=("127.0.0.1",), port=port))

    asyncio.run(register())
    guide = (ROOT / "docs" / "discovery.md").read_text()
    program = "\n".join(re.findall(r"```python\n(.*?)```", guide, re.DOTALL))
    program = program.replace("etcd:http://10.0.0.1:2379", f"sqlite:{tmp_path}/state/store.db")
    done = subprocess.run(
        [sys.executable, "-P", "-"], input=program, capture_output=True, text=True, check=False
    )
    server.close()
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"127.0.0.1 {port} n1 {{}}",
        "pong",
        "1 serve web",
        "c1-1 1 c1-1",
        'service "mail" has no healthy instance',
        "c1-1",
        "1",
    ]
