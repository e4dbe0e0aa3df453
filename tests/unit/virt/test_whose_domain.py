# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains that lost our metadata, and QEMUs of ours: whose is what, when a VM ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from vdsm.common.xml import parse
from vdsm.virt import qemu_process, release
from vdsm.virt.domain_xml.description import describe
from vdsm.virt.domain_xml.errors import BadDomainXml
from vdsm.virt.errors import DestroyFailed
from vdsm.virt.hypervisor import Change, DomainState
from vdsm.virt.qemu_process import QemuProcess
from vdsm.virt.vm import Vm

from .fakes import VM, FakeDomain, World, disk, settle, until, xml_of

FOREIGN = f"<domain type='kvm'><name>theirs</name><uuid>{VM}</uuid></domain>"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(release, "GONE_S", 0.05)
    world = World(tmp_path)
    await world.vms.start()
    yield world
    await world.vms.stop()


@pytest.fixture
def qemu() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def _up(world: World, qemu: subprocess.Popen[bytes]) -> Vm:
    started = qemu_process._started(qemu.pid, "/proc")
    assert started is not None
    process = QemuProcess(qemu.pid, started)

    async def launch(vm_id: str) -> None:
        world.processes[vm_id] = process

    world.hypervisor.before["launch"] = launch
    vm = await world.vms.create(VM, xml_of(disks=[disk()]))
    await until(lambda: vm.status.stored == "Up" and vm.record.process is not None)
    await settle()
    return vm


async def test_a_vm_whose_metadata_somebody_took_is_ended_like_any_other(
    world: World, qemu: subprocess.Popen[bytes]
) -> None:
    await _up(world, qemu)
    world.hypervisor.found[VM].xml = FOREIGN

    async def ends(_vm_id: str) -> None:
        qemu.kill()
        qemu.wait()

    world.hypervisor.before["terminate"] = world.hypervisor.before["kill"] = ends
    await world.vms.destroy(VM)
    assert qemu.poll() is not None
    assert world.storage.prepared == set()
    assert len(world.events.downs()) == 1
    assert VM in world.hypervisor.found  # a definition without our metadata may be somebody else's


async def test_a_foreign_definition_does_not_prove_that_our_qemu_is_gone(
    world: World, qemu: subprocess.Popen[bytes]
) -> None:
    vm = await _up(world, qemu)
    world.hypervisor.found[VM] = FakeDomain(FOREIGN, DomainState.OFF)
    world.hypervisor.tell(VM, Change.STOPPED)
    await until(lambda: vm.lost.now)
    with pytest.raises(DestroyFailed, match=f"process {qemu.pid}"):
        await world.vms.destroy(VM)
    assert world.storage.prepared
    assert world.events.downs() == []


async def test_a_foreign_domain_that_runs_with_the_uuid_of_a_vm_that_ended_is_left_alone(
    world: World, qemu: subprocess.Popen[bytes]
) -> None:
    await _up(world, qemu)
    qemu.kill()
    qemu.wait()
    world.hypervisor.found[VM] = FakeDomain(FOREIGN, DomainState.RUNNING)
    await world.vms.destroy(VM)
    assert world.hypervisor.found[VM].state is DomainState.RUNNING
    assert world.storage.prepared == set()


def test_metadata_that_libvirt_would_not_keep_is_refused() -> None:
    xml = xml_of().replace("<metadata>", "<metadata/><metadata>")
    with pytest.raises(BadDomainXml, match="metadata"):
        describe(parse(xml, what="it"))


def test_a_namespace_that_has_no_canonical_form_is_read() -> None:
    assert describe(parse(xml_of(devices="<x xmlns:a='relative'/>"), what="it")).devices_digest
