# SPDX-License-Identifier: GPL-2.0-or-later
"""Leases and their writers: one that outlives its SPM process, a domain that fails while it is attached."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from pathlib import Path

import pytest
from storage_flows import lead, new_id, new_volume, run_task, spm_pid, volume_params

from contrib.lab import engine
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost
from tests.undying import undying
from vdsm.client import RpcError


def _sanlock(host: PrivateHost) -> str:
    return host.run(["sanlock", "client", "status"]).stdout.decode()


def _writers(host: PrivateHost, spm: int) -> list[int]:
    """I/O helpers of the SPM process: their parent is its child, which bears them."""
    told = host.run(["ps", "-eo", "pid=,ppid=,sid="]).stdout.decode().splitlines()
    found = [tuple(map(int, line.split())) for line in told]
    return [pid for pid, parent, session in found if session == spm and spm not in (pid, parent)]


@pytest.mark.cost(30)
@pytest.mark.timeout(180)
async def test_no_host_is_spm_while_a_writer_of_a_killed_spm_process_lives(tmp_path: Path) -> None:
    image = tmp_path / "pool.img"
    subprocess.check_call(["truncate", "-s", "2G", str(image)])
    subprocess.check_call(["mkfs.ext4", "-q", "-E", "root_owner=36:36", str(image)])
    shared = {"/srv/shared": str(tmp_path)}
    connection = engine.posix_connection("/srv/shared/pool.img")
    with PrivateHost(shared=shared) as first, PrivateHost(shared=shared) as second:
        first.start_agent()
        second.start_agent()
        async with first.client() as one, second.client() as other:
            pool = await engine.new_pool(one, connection=connection)
            await engine.connect_server(other, engine.POSIXFS, connection)
            await engine.connect_pool(other, pool.pool_id, pool.domain_id, host_id=2)
            await run_task(one, "Volume.create", volume_params(new_volume(pool)))
            spm = spm_pid(first)
            (writer, *_) = _writers(first, spm)
            with undying(first.outer_pid(writer)) as held:
                first.run(["kill", "-9", str(spm)])
                held.killed()
                with pytest.raises(HostFailed) as there:
                    await engine.become_spm(other, pool.pool_id)
                assert "'code': 651" in str(there.value)
                assert re.search(r"held by the host with id 1 \([0-9a-f-]+\): it is SPM, or writers", str(there.value))
                with pytest.raises(HostFailed) as here:
                    await engine.become_spm(one, pool.pool_id)
                assert "'code': 651" in str(here.value)
                assert f"what is left of process {spm}: {writer} (" in str(here.value)
                assert f"process {spm}, which has ended, keep its lease" in first.run(
                    ["vdsm", "doctor"], check=False
                ).stdout.decode().replace("\n", " ")
                assert any(":SDM:" in line and line.endswith(f"p {spm}") for line in _sanlock(first).splitlines())
                ended = time.monotonic()
                held.let_go()
            await engine.become_spm(other, pool.pool_id)
            print(f"the second host is SPM {time.monotonic() - ended:.2f} s after the last writer's end")
            await run_task(other, "Volume.create", volume_params(new_volume(pool)))


@pytest.mark.cost(30)
@pytest.mark.timeout(180)
async def test_a_domain_whose_lockspace_fails_while_it_is_attached_costs_the_attach_only(
    fresh_host: PrivateHost,
) -> None:
    host = fresh_host
    # the attaching process stands still at the point, alive, since nobody reads what it writes there
    host.run(["mkfifo", "-m", "666", "/run/lab-still"])
    host.start_agent({"VDSM_CRASH_AT": "@/run/lab-crash-at", "VDSM_CRASH_POWER": "/run/lab-still"})
    async with host.client() as client:
        pool = await engine.new_pool(client)
        await lead(client, pool)
        spm = spm_pid(host)
        file = f"/srv/second-{new_id()}.img"
        host.run(["truncate", "-s", "1G", file])
        host.run(["mkfs.ext4", "-q", "-E", "root_owner=36:36", file])
        second = await engine.create_domain(client, engine.POSIXFS, engine.posix_connection(file), "second")
        host.path("/run/lab-crash-at").write_text("domain.attach.taken")
        ids = {"storagedomainID": second, "storagepoolID": pool.pool_id}
        attaching = asyncio.ensure_future(client.call("StorageDomain.attach", ids, timeout_s=120))

        async def holder() -> str:
            return "".join(line for line in _sanlock(host).splitlines() if line.startswith(f"r {second}:SDM:"))

        held = await engine.until("the domain's lease", holder, timeout_s=30)
        assert not held.endswith(f"p {spm}")
        lockspace = next(line for line in _sanlock(host).splitlines() if line.startswith(f"s {second}:"))
        path = lockspace.split(":")[2]
        host.run(["dd", "if=/dev/zero", f"of={path}", "bs=512", "count=1", "conv=notrunc", "oflag=direct"])
        with pytest.raises(RpcError) as cut_off:
            await attaching
        assert cut_off.value.code == 350
        assert "was cut off: process" in str(cut_off.value)
        assert spm_pid(host) == spm
        assert (await client.call("StoragePool.getSpmStatus", {"storagepoolID": pool.pool_id}))["spmStatus"] == "SPM"
        await run_task(client, "Volume.create", volume_params(new_volume(pool)))
