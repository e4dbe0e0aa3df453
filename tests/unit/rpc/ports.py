# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine's port that listens when a test has it."""

from __future__ import annotations

import asyncio

from vdsm.rpc.port import EnginePort


async def opened(port: EnginePort) -> EnginePort:
    await port.start()
    async with asyncio.timeout(5):
        while not port.port:
            await asyncio.sleep(0.005)
    return port
