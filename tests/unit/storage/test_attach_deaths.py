# SPDX-License-Identifier: GPL-2.0-or-later
"""An attach that dies at any step is done again, and costs the SPM role nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from local_world import World

import storage.spm.once  # noqa: F401 - declares the crash points of its process
from storage.spm.control import SpmStatus
from storage.spm.errors import ChangeEnded
from tests.decoder import domain as decoder
from vdsm.common.crashpoints import REGISTRY
from vdsm.common.ids import new_uuid

ENDED = "domain.attach.ended"
POINTS = sorted(name for name in REGISTRY if name.startswith("domain.attach."))

AGENT = """
import asyncio, json, sys
from pathlib import Path
sys.path.insert(0, HERE)
from local_world import World
top, pool_id, domain_id, second = json.loads(sys.argv[1])
async def main():
    world = World(Path(top), pool_id=pool_id, domain_id=domain_id)
    await world.start()
    await world.connect()
    await world.become_spm()
    await world.create_domain(second, world.top / "second")
    await world.storage.pool_domains.attach(pool_id, second)
asyncio.run(main())
"""


async def _attached_at_last(world: World, second: str) -> None:
    await world.storage.pool_domains.attach(world.pool_id, second)
    assert decoder.decode(world.top / "second" / second).fields["POOL_UUID"] == world.pool_id
    await world.storage.pool_domains.activate(world.pool_id, second)


@pytest.mark.parametrize("point", [point for point in POINTS if point != ENDED])
async def test_an_attach_whose_process_dies_costs_the_attach_only(
    spm: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    second, role = new_uuid(), spm.storage.pool.spm.pid
    await spm.create_domain(second, spm.top / "second")
    with monkeypatch.context() as patched:
        patched.setenv("VDSM_CRASH_AT", point)
        with pytest.raises(ChangeEnded, match=r"was cut off: process \d+ ended"):
            await spm.storage.pool_domains.attach(spm.pool_id, second)
    assert second not in spm.storage.pool.require(spm.pool_id).domains
    assert (spm.storage.pool.spm.status, spm.storage.pool.spm.pid) == (SpmStatus.SPM, role)
    await _attached_at_last(spm, second)


async def test_an_agent_that_dies_after_an_attach_attaches_again(tmp_path: Path, world: World) -> None:
    second = new_uuid()
    await world.stop()
    arguments = json.dumps([str(world.top), world.pool_id, world.domain_id, second])
    code = AGENT.replace("HERE", repr(str(Path(__file__).parent)))
    died = subprocess.run(
        [sys.executable, "-c", code, arguments], env={"PATH": "/usr/bin:/bin", "VDSM_CRASH_AT": ENDED}, check=False
    )
    assert died.returncode == -9
    assert decoder.decode(world.top / "second" / second).fields["POOL_UUID"] == world.pool_id
    restarted = World(world.top, pool_id=world.pool_id, domain_id=world.domain_id)
    await restarted.start()
    await restarted.connect()
    assert (await restarted.become_spm())["taskResult"] == "success"
    await _attached_at_last(restarted, second)
    await restarted.stop()
