# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of modules whose VMs have their disks on a local pool: no lockspace to wait for.

A module takes them by the names that its tests use:

    local_pool_host = life_hosts.host()
    agent_host, client, volume = life_hosts.agent_host, life_hosts.client, life_hosts.volume
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import tiny_guest
from life_flows import faulty_disk
from storage_flows import join, lead

from contrib.lab import engine
from contrib.lab.host import PrivateHost
from tests.failure_logs import watched
from vdsm.client import Client

HOST_SETTINGS = "\n[irs]\nsd_health_check_delay = 1\n"
Behave = Callable[[str], None]


def host(*commands: list[str]) -> Any:
    """A fixture: the module's host with its agent, once these commands have run there."""

    @pytest.fixture(scope="module")
    def local_pool_host() -> Iterator[PrivateHost]:
        with PrivateHost(settings=HOST_SETTINGS) as host, watched(host):
            for command in commands:
                host.run(command)
            host.start_agent()
            yield host

    return local_pool_host


@pytest.fixture
def agent_host(local_pool_host: PrivateHost) -> PrivateHost:
    if not local_pool_host.agent_lives:
        local_pool_host.start_agent()
    return local_pool_host


@pytest.fixture
async def client(agent_host: PrivateHost, local_pool: engine.Pool) -> AsyncIterator[Client]:
    async with agent_host.client() as client:
        yield client


@pytest.fixture
async def volume(agent_host: PrivateHost, client: Client, local_pool: engine.Pool) -> engine.Volume:
    await join(client, local_pool)  # a test may have restarted the agent
    await lead(client, local_pool)
    return await tiny_guest.new_volume(agent_host, client, local_pool)


@pytest.fixture
def disk(agent_host: PrivateHost, local_pool: engine.Pool, volume: engine.Volume) -> Iterator[Behave]:
    """The volume's file, which behaves as it is told: see `life_flows.faulty_disk`."""
    with faulty_disk(agent_host, tiny_guest.inside(local_pool, volume)) as behave:
        yield behave
