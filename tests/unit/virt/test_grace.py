# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a QEMU that ignores SIGTERM may keep its end waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vdsm.virt.ending import GRACE_MOST

from .fakes import VM, World, refuse, settle, until, xml_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.vms.start()
    yield world
    await world.vms.stop()


async def test_a_caller_with_all_the_patience_in_the_world_gets_a_vm_killed_nevertheless(world: World) -> None:
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.stored == "Up")
    await settle()
    world.hypervisor.before["terminate"] = refuse("it does not listen")
    await world.vms.destroy(VM, graceful_attempts=500)
    assert world.hypervisor.calls.count("terminate") == GRACE_MOST
    assert world.hypervisor.calls.count("kill") == 1
