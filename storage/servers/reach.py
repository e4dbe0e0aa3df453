# SPDX-License-Identifier: GPL-2.0-or-later
"""Does anything listen at a server? Asked before root mounts: a server that is gone is told within seconds so.

mount(8) itself tries for two minutes, in a process that may hang in the kernel. Here nothing hangs but a look-up of a
name, in threads of its own, so that it takes none from the rest of the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

REACH_S = 10.0
NAMES_AT_ONCE = 20

Target = tuple[int, tuple[Any, ...]]
"""Family and address, as sockets take them."""


class Reach:
    def __init__(self) -> None:
        self._names = ThreadPoolExecutor(NAMES_AT_ONCE, thread_name_prefix="names of servers")

    async def lacking(self, host: str, ports: Sequence[int]) -> str:
        """Why none of these TCP ports can be reached; empty when one can. Within `REACH_S`."""
        said: list[str] = []
        try:
            async with asyncio.timeout(REACH_S):
                addresses = await self._look_up(host)
                targets = [(family, (at[0], port, *at[2:])) for family, at in addresses for port in ports]
                if await _first_connected(targets, said):
                    return ""
        except TimeoutError:
            said.append(f"no answer within {REACH_S:g} s")
        except OSError as e:
            return f"its name {host} is not known here: {e.strerror}"
        where = " or ".join(map(str, ports))
        return f"server {host} can't be reached at TCP port {where}: {', '.join(sorted(set(said)))}"

    async def _look_up(self, host: str) -> list[Target]:
        host = host.strip("[]")
        try:
            return _addresses(host, socket.AI_NUMERICHOST)
        except socket.gaierror:
            return await asyncio.get_running_loop().run_in_executor(self._names, _addresses, host)


def _addresses(host: str, flags: int = 0) -> list[Target]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]


async def _first_connected(targets: Sequence[Target], said: list[str]) -> bool:
    trying = [asyncio.ensure_future(_connect(family, address)) for family, address in targets]
    try:
        for tried in asyncio.as_completed(trying):
            try:
                await tried
            except OSError as e:
                said.append(os.strerror(e.errno) if e.errno else str(e))
            else:
                return True
    finally:
        for one in trying:
            one.cancel()
        await asyncio.gather(*trying, return_exceptions=True)
    return False


async def _connect(family: int, address: tuple[Any, ...]) -> None:
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)
        await asyncio.get_running_loop().sock_connect(probe, address)
