# SPDX-License-Identifier: GPL-2.0-or-later
"""A noisy client: one verb at a fixed rate for a while, whether it is answered in time or not.

A process of its own, so that the agent takes it for another client::

    python -m contrib.benchmarks.noise SOCKET VERB RATE SECONDS

Prints one JSON object: sent, answered, failed.
"""

from __future__ import annotations

import asyncio
import json
import sys

from vdsm.client import Client, ClientError

ANSWER_S = 60.0


async def make(address: str, verb: str, rate: float, seconds: float) -> dict[str, int]:
    loop = asyncio.get_running_loop()
    counts = {"sent": 0, "answered": 0, "failed": 0}
    async with Client.unix(address) as client:

        async def one() -> None:
            try:
                await client.call(verb, timeout_s=ANSWER_S)
                counts["answered"] += 1
            except ClientError:
                counts["failed"] += 1

        started = loop.time()
        running: set[asyncio.Task[None]] = set()
        while loop.time() < started + seconds:
            due = int((loop.time() - started) * rate) + 1
            while counts["sent"] < due:
                counts["sent"] += 1
                task = loop.create_task(one())
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.sleep(max(0.0, started + due / rate - loop.time()))
        await asyncio.gather(*running)
    return counts


def main() -> None:
    address, verb, rate, seconds = sys.argv[1:5]
    print(json.dumps(asyncio.run(make(address, verb, float(rate), float(seconds)))))


if __name__ == "__main__":
    main()
