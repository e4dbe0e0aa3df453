# SPDX-License-Identifier: GPL-2.0-or-later
"""What an engine reads when it activates a host, on a real one: every key has the form that it casts to."""

from __future__ import annotations

from typing import Any

import pytest
from vm_flows import describe, destroy, settled

from contrib.contract.casts import wrong
from contrib.lab import engine
from contrib.lab.host import PrivateHost
from vdsm.client import Client, RpcError

READS = ("Host.getCapabilities", "Host.getHardwareInfo", "Host.getStats", "Host.getAllVmStats", "Host.getJobs")


async def _checked(client: Client, verb: str, params: dict[str, Any] | None = None) -> Any:
    answer = await client.call(verb, params, timeout_s=60)
    assert wrong(verb, answer) == [], verb
    return answer


@pytest.mark.parametrize("verb", READS)
async def test_host_without_a_pool(client: Client, verb: str) -> None:
    await _checked(client, verb)


async def test_capabilities_pass_the_gates_of_an_engine(client: Client) -> None:
    told = await _checked(client, "Host.getCapabilities")
    assert "4.7" in told["clusterLevels"] or "4.8" in told["clusterLevels"]
    assert "4.5" in told["supportedENGINEs"]
    assert told["emulatedMachines"]
    assert {"random", "urandom"} & set(told["rngSources"])
    assert told["packages2"]["libvirt"]["version"]


async def test_pool_domains_and_a_running_vm(local_pool_host: PrivateHost, local_pool: engine.Pool) -> None:
    async with local_pool_host.client() as client:
        pool, domain = {"storagepoolID": local_pool.pool_id}, {"storagedomainID": local_pool.domain_id}
        volume = await engine.create_volume(client, local_pool, size_bytes=64 << 20)
        vm = describe(volume)
        assert wrong("VM.create", await engine.create_vm(client, vm)) == []
        try:
            assert await settled(client, vm.vm_id) == "Up"
            (told,) = await _checked(client, "Host.getAllVmStats")
            assert told["vmId"] == vm.vm_id
            stats = await _checked(client, "Host.getStats")
            assert stats["storageDomains"][local_pool.domain_id]["valid"] is True
            await _checked(client, "Host.dumpxmls", {"vmList": [vm.vm_id]})
        finally:
            await destroy(client, vm.vm_id)
        for verb in ("StoragePool.getInfo", "StoragePool.getSpmStatus"):
            await _checked(client, verb, pool)
        for verb in ("StorageDomain.getInfo", "StorageDomain.getStats", "StorageDomain.getImages"):
            await _checked(client, verb, domain)
        ids = {**pool, **domain, "imageID": volume.image_id, "volumeID": volume.volume_id}
        for verb in ("Volume.getInfo", "Volume.getSize", "Volume.getQemuImageInfo"):
            await _checked(client, verb, ids)
        for verb in ("Host.getAllTasksStatuses", "Host.getAllTasksInfo"):
            await _checked(client, verb)


async def test_verb_that_is_not_built_is_a_plain_failure(client: Client) -> None:
    with pytest.raises(RpcError) as caught:
        await client.call("Host.getDeviceList")
    assert caught.value.code == 44
    assert "Host.getDeviceList is not built yet" in caught.value.message
