# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m contrib.demo.storage docs/storage.svg``: the picture of `vdsm storage` in docs/cli.md, from a real host.

The host has a pool of two domains, and may not enter the second one any more.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from rich.text import Text

from contrib.demo.telling import WIDTH, console
from contrib.lab import engine
from contrib.lab.host import PrivateHost

SECOND = "/srv/second.img"
MOUNT = "/rhev/data-center/mnt/_srv_second.img"
COMMAND = "vdsm storage"


def main(file: Path) -> None:
    with PrivateHost(f"picture-{os.getpid()}") as host:
        host.start_agent()
        asyncio.run(_break_one(host))
        screen = console(record=True)
        screen.print(Text.assemble(("# ", "dim"), (COMMAND, "bold")))
        host.run(["sh", "-c", f"chmod 0 {MOUNT}/*/dom_md"])
        asyncio.run(_until_bad(host))
        shown = host.run(["script", "-qc", f"stty cols {WIDTH}; {COMMAND}", "/dev/null"], check=False)
        screen.print(Text.from_ansi(shown.stdout.decode().replace("\r", "")))
    screen.save_svg(str(file), title=COMMAND)


async def _break_one(host: PrivateHost) -> None:
    host.run(["truncate", "-s", "1G", SECOND])
    host.run(["mkfs.ext4", "-q", "-E", "root_owner=36:36", SECOND])
    async with host.client() as client:
        pool = await engine.new_pool(client)
        second = await engine.create_domain(client, engine.POSIXFS, engine.posix_connection(SECOND), "archive")
        ids = {"storagedomainID": second, "storagepoolID": pool.pool_id}
        await client.call("StorageDomain.attach", ids, timeout_s=60)
        await client.call("StorageDomain.activate", ids)

        async def joined() -> bool:
            stats = await client.call("Host.getStorageRepoStats")
            return len(stats) == 2 and all(entry["acquired"] for entry in stats.values())

        await engine.until("both host ids", joined, timeout_s=60)


async def _until_bad(host: PrivateHost) -> None:
    async with host.client() as client:

        async def bad() -> Any:
            return not all(entry["valid"] for entry in (await client.call("Host.getStorageRepoStats")).values())

        await engine.until("the agent notices", bad, timeout_s=60)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
