# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host's agent says of itself, asked as shortly as possible: for the list of hosts."""

from __future__ import annotations

import asyncio
import contextlib

from contrib.lab.agent_life import AGENT_SOCKET
from contrib.lab.control import HostFailed
from contrib.lab.labs import Member
from vdsm.client import Client, ClientError, RpcError

ANSWER_S = 5.0


def agent_state(member: Member) -> tuple[str, str]:
    """A word or two on the agent, and the host's first address."""
    try:
        host = member.host()
        told = host.run(["ip", "-br", "-4", "address", "show", "scope", "global"], timeout_s=ANSWER_S, check=False)
    except (HostFailed, TimeoutError, OSError):
        return "", ""
    first = told.stdout.decode().split("\n", maxsplit=1)[0].split()
    address = first[2] if len(first) > 2 else ""
    return asyncio.run(_ask(host.outer_socket(AGENT_SOCKET))), address


async def _ask(path: str) -> str:
    with contextlib.suppress(RpcError, ClientError, TimeoutError, OSError):
        async with asyncio.timeout(ANSWER_S), Client.unix(path) as client:
            vms = await client.call("Host.getVMList", {"fullStatus": False}, timeout_s=ANSWER_S)
            pools = await client.call("Host.getConnectedStoragePools", {}, timeout_s=ANSWER_S)
            return f"{len(vms)} VM{'s' * (len(vms) != 1)}, {await _role(client, pools)}"
    return "not running"


async def _role(client: Client, pools: object) -> str:
    found = pools.get("poollist", pools) if isinstance(pools, dict) else pools
    if not isinstance(found, list) or not found:
        return "no pool"
    status = await client.call("StoragePool.getSpmStatus", {"storagepoolID": found[0]}, timeout_s=ANSWER_S)
    return "SPM" if status["spmStatus"] == "SPM" else "in a pool"
