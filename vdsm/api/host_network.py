# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of Host that set up networks and tell about them."""

from __future__ import annotations

from msgspec import field

from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, NoParams, Params, done


class SetupNetworks(Params):
    networks: dict[str, JsonDict]
    bondings: dict[str, JsonDict] = field(default_factory=dict)
    options: JsonDict = field(default_factory=dict)


@verb("Host.setupNetworks", role=Role.ADMIN, lacks="VLANs, bonds, Open vSwitch, DHCP, QoS")
async def host_setup_networks(call: Call, params: SetupNetworks) -> JsonDict:
    """Add, change and remove networks in one step; undone as a whole when it fails or nobody confirms it in time."""
    await call.agent.network.setup_networks(params.networks, params.bondings, params.options)
    return done()


@verb("Host.setSafeNetworkConfig", role=Role.ADMIN)
async def host_set_safe_network_config(call: Call, params: NoParams) -> None:
    """Let the networks of now come back at boot."""
    await call.agent.network.set_safe_config()


@verb("Host.confirmConnectivity", role=Role.ADMIN, urgent=True, changes=False)
async def host_confirm_connectivity(call: Call, params: NoParams) -> None:
    """Say that this host is still reached; keeps a change of networks that waits for it."""
    call.agent.network.confirm_connectivity()


@verb("Host.getNetworkCapabilities", role=Role.READER)
async def host_get_network_capabilities(call: Call, params: NoParams) -> JsonDict:
    """The network part of Host.getCapabilities."""
    return await call.agent.network.capabilities()


@verb("Host.getNetworkStatistics", role=Role.READER)
async def host_get_network_statistics(call: Call, params: NoParams) -> JsonDict:
    """The network part of Host.getStats."""
    return {"network": (await call.agent.host.stats()).get("network", {})}
