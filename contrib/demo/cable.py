# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's network: the host's NIC and address move into a bridge, and out again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from contrib.demo.telling import Story
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost
from vdsm.client import Client

NETWORK = "demo"


async def attach(client: Client, story: Story, host: PrivateHost) -> None:
    address, prefix = host.spec.address.split("/")
    gateway = host.spec.gateway.split("/")[0]
    wanted = {
        "nic": "eth0",
        "bridged": "true",
        "bootproto": "none",
        "ipaddr": address,
        "prefix": prefix,
        "gateway": gateway,
        "defaultRoute": True,
        "mtu": 1500,
    }
    with story.step(f"Put eth0 into a bridged network {NETWORK}, with the host's address"):
        await _setup_networks(client, story, {NETWORK: wanted})
        bridge = (await client.call("Host.getCapabilities"))["networks"][NETWORK]
        story.say(f"bridge {bridge['iface']} with ports {', '.join(bridge['ports'])}, address {bridge['addr']}")
        host.run_outside(["busybox", "ping", "-c", "1", "-W", "3", address])
        story.say(f"the gateway {gateway} reaches {address} through it")


async def detach(client: Client, story: Story) -> None:
    await _setup_networks(client, story, {NETWORK: {"remove": "true"}})
    networks = (await client.call("Host.getCapabilities"))["networks"]
    if NETWORK in networks:
        raise HostFailed(f"the network is still there: {networks}")


async def _setup_networks(client: Client, story: Story, networks: dict[str, Any]) -> None:
    """As the engine does it: the host waits for a sign that the engine still reaches it, else it rolls back."""
    options = {"connectivityCheck": "true", "connectivityTimeout": 20, "commitOnSuccess": True}
    params = {"networks": networks, "bondings": {}, "options": options}

    async def confirm() -> None:
        while True:
            await client.call("Host.confirmConnectivity")
            await asyncio.sleep(0.2)

    confirming = asyncio.create_task(confirm())
    try:
        await client.call("Host.setupNetworks", params, timeout_s=60)
    finally:
        confirming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await confirming
    story.call("Host.setupNetworks", "confirmed by Host.confirmConnectivity, committed")
