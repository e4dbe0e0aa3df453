# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM role between hosts: one holder at a time, moved when its host dies, its begun tasks settled there."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from storage_flows import clear_all, new_volume, run_task, volume_params

from contrib.lab import engine, furnish
from contrib.lab.cluster import Cluster
from contrib.lab.control import HostFailed
from contrib.lab.datacenter import DataCenter
from contrib.lab.host import PrivateHost
from tests.decoder import domain as decoder
from tests.failure_logs import watched

IO_TIMEOUT_S = 1
# what sanlock takes until a dead host's lease is free, and what the engine takes to see it
MOUNT = "/rhev/data-center/mnt/_srv_shared_domain.img"
BOUND_S = 8 * IO_TIMEOUT_S + 60 + 15


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(hosts=3) as cluster, watched(*cluster.hosts):
        yield cluster


@pytest.mark.cost(90)
@pytest.mark.timeout(240)
async def test_the_role_is_one_host_s_and_moves_when_it_dies(cluster: Cluster) -> None:
    first, second, _ = cluster.hosts
    # the SPM process stands still at the point, alive, since nobody reads what it writes there
    first.run(["mkfifo", "-m", "666", "/run/lab-still"])
    first.start_agent({"VDSM_CRASH_AT": "@/run/lab-crash-at", "VDSM_CRASH_POWER": "/run/lab-still"})
    cluster.start_agents()
    async with DataCenter(cluster) as center:
        pool = await center.create_pool()
        assert await center.spm() is first

        status = await center.client(second).call("StoragePool.getSpmStatus", {"storagepoolID": pool.pool_id})
        assert (status["spmStatus"], int(status["spmId"])) == ("Free", 1)
        with pytest.raises(HostFailed) as refused:
            await center.elect(second)
        assert "'code': 651" in str(refused.value)
        assert "is held by the host with id 1" in str(refused.value)
        assert await center.spm() is first

        kept = new_volume(pool)
        await run_task(center.client(first), "Volume.create", volume_params(kept))
        begun = new_volume(pool)
        first.path("/run/lab-crash-at").write_text("volume.create.format")
        await center.client(first).call("Volume.create", volume_params(begun))
        payload = f"{MOUNT}/{pool.domain_id}/images/{begun.image_id}/{begun.volume_id}"
        furnish.until("the task is in its middle", lambda: _is_qcow2(first, payload))
        first.stop()  # agent, SPM process and sanlock at once
        cut = time.monotonic()

        await center.move_spm(second, dead=first, timeout_s=BOUND_S)
        took = time.monotonic() - cut
        print(f"the second host is SPM {took:.1f} s after the first one's power cut; the bound is {BOUND_S} s")
        assert 8 * IO_TIMEOUT_S < took <= BOUND_S  # sooner would be too soon: the first one might still write
        assert await center.spm() is second

        client = center.client(second)
        ((found,), (leases,)) = [await client.call(f"storage.get{what}") for what in ("Hosts", "Leases")]
        assert {host["hostId"]: (host["status"], host["here"]) for host in found["hosts"]} == {
            1: ("dead", False),
            2: ("live", True),
            3: ("live", False),
        }
        assert {host["name"] for host in found["hosts"]} >= {host.spec.host_id for host in (first, second)}
        assert [(lease["hostId"], lease["status"]) for lease in leases["leases"]] == [(2, "live")]
        tasks = await clear_all(client)
        assert [task["taskResult"] for task in tasks.values()] == ["cleanSuccess"]
        images = await client.call("StorageDomain.getImages", {"storagedomainID": pool.domain_id})
        assert images == [kept.image_id]
        assert set(decoder.decode(second.path(f"{MOUNT}/{pool.domain_id}")).images) == {kept.image_id}
        await engine.create_volume(client, pool, size_bytes=8 << 20)


def _is_qcow2(host: PrivateHost, path: str) -> bool:
    return host.path(path).exists() and host.path(path).read_bytes()[:4] == b"QFI\xfb"
