# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest moves between hosts while it runs: its counter goes on, and its disk with it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest

from contrib.lab import engine, furnish, vm_xml
from contrib.lab.cluster import Cluster
from contrib.lab.datacenter import DataCenter
from contrib.lab.guest import Guest
from contrib.lab.host import PrivateHost
from tests.failure_logs import watched


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(hosts=2) as cluster, watched(*cluster.hosts):
        cluster.start_agents()
        yield cluster


async def test_a_stopped_vm_s_end_is_told_by_an_event(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    async with DataCenter(cluster) as center:
        vm = vm_xml.Vm(str(uuid.uuid4()), "brief", memory_mib=32)
        await center.run_vm(host, vm)
        told = await center.stop_vm(host, vm)
        assert (told["exitCode"], told["status"]) == (0, "Down")


@pytest.mark.cost(20)
async def test_a_guest_s_counter_never_goes_back_when_it_is_migrated(cluster: Cluster, guest: Guest) -> None:
    source, target = cluster.hosts
    vm_id = str(uuid.uuid4())
    async with DataCenter(cluster) as center:
        pool = await center.create_pool()
        volume = await engine.create_volume(center.client(source), pool, size_bytes=64 << 20, thin=False)
        vm = vm_xml.Vm(
            vm_id,
            "moving",
            kernel=guest.kernel,
            initrd=guest.initrd,
            cmdline="console=ttyS0 lab.token=moving",
            disks=(volume.disk(),),
        )
        await center.run_vm(source, vm)
        furnish.until("the guest counts", lambda: len(_counts(source, vm)) >= 2)

        moved = await center.migrate(vm, source, target)
        furnish.until("the guest goes on counting", lambda: len(_counts(target, vm)) >= 3)
        before, after = _counts(source, vm), _counts(target, vm)
        print(f"migrated in {moved.total_s:.2f} s, the guest stood still for {moved.downtime_ms} ms")
        assert before + after == list(range(before[0], before[0] + len(before) + len(after)))
        assert moved.downtime_ms < 1000

        # the source's agent has no VM any more and the target's leaves it alone
        await engine.wait_vm(center.client(source), vm_id, "Down", "gone")
        assert target.run(["virsh", "-q", "domstate", vm.name]).stdout.strip() == b"running"
        for host in cluster.hosts:
            assert host.agent_lives


def _counts(host: PrivateHost, vm: vm_xml.Vm) -> list[int]:
    path = host.path(vm.serial_log)
    return [int(n) for n in re.findall(rb"guest: alive (\d+)\r?\n", path.read_bytes())] if path.exists() else []
