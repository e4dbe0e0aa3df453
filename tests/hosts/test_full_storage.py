# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain whose file system is full: clear errors, nothing half made, and room again is enough."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from storage_flows import check_domain, domain_path, new_volume, volume_params

from contrib.lab import engine
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost
from vdsm.client import Client
from vdsm.client.errors import RpcError

MIB = 1 << 20


def fill(path: Path) -> None:
    """Take every block that is left, also for root."""
    with open(path, "wb", buffering=0) as f:
        left = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
        os.posix_fallocate(f.fileno(), 0, left - 64 * 1024)
        f.seek(0, os.SEEK_END)
        with contextlib.suppress(OSError):
            while f.write(b"x" * 4096):
                pass


@pytest.mark.cost(10)
async def test_a_volume_that_does_not_fit_is_refused_and_leaves_nothing(
    agent_host: PrivateHost, client: Client, pool: engine.Pool
) -> None:
    free = int((await client.call("StorageDomain.getStats", {"storagedomainID": pool.domain_id}))["diskfree"])
    before = check_domain(agent_host, pool)
    volume = new_volume(pool)
    params = volume_params(volume, volFormat=5, preallocate=1, size=str(free + 64 * MIB))
    with pytest.raises(HostFailed, match=r"'code': 397.*No space left"):
        await engine.finish_task(client, await client.call("Volume.create", params))
    after = check_domain(agent_host, pool)
    assert after.images == before.images
    stats = await client.call("StorageDomain.getStats", {"storagedomainID": pool.domain_id})
    assert int(stats["diskfree"]) > free - 8 * MIB


@pytest.mark.cost(10)
async def test_a_full_domain_is_told_and_works_again_with_room(
    agent_host: PrivateHost, client: Client, pool: engine.Pool
) -> None:
    filler = domain_path(agent_host, pool).parent / "filler"
    fill(filler)
    try:
        with pytest.raises(RpcError, match=r"code 397: .*No space left"):  # no room for the task itself
            await engine.create_volume(client, pool)
        assert await client.call("Host.ping2") is True
    finally:
        filler.unlink()
    volume = await engine.create_volume(client, pool)
    check_domain(agent_host, pool)
    await engine.delete_image(client, volume)
