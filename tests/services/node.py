"""A node as a process, which registers an instance and lives until it is killed.

python node.py WHERE OPTIONS TTL INSTANCE, of which OPTIONS and INSTANCE are JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

import msgspec

from cni_py.services.instance import Instance
from cni_py.services.opening import open_registry


async def main(where: str, options: str, ttl: str, given: str) -> None:
    instance = msgspec.json.decode(given, type=Instance)
    async with (
        open_registry(where, **json.loads(options)) as registry,
        registry.registrant(instance.node, int(ttl)) as registrant,
    ):
        await registrant.register(instance)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
