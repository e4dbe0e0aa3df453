# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of Host that tell what the host is and does."""

from __future__ import annotations

from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, NoParams


@verb("Host.getCapabilities", role=Role.READER)
async def host_get_capabilities(call: Call, params: NoParams) -> JsonDict:
    """What the host is and can do: processors, memory, network, versions, installed hooks."""
    return await call.agent.host.capabilities()


@verb("Host.getStats", role=Role.READER)
async def host_get_stats(call: Call, params: NoParams) -> JsonDict:
    """What the host does now: load, memory, interfaces, storage domains, number of VMs. Answered from memory."""
    return await call.agent.host.stats()


@verb("Host.getHardwareInfo", role=Role.READER)
async def host_get_hardware_info(call: Call, params: NoParams) -> JsonDict:
    """The machine's own description: maker, product, serial number, UUID."""
    return dict(await call.agent.host.hardware_info())
