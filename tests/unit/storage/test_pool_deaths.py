# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever dies at whatever step of a change of a pool, its engine asks again and the change comes to its end.

Every crash point of these changes, as the registry has them: the process that reaches it dies, its agent dies, or the
storage stops answering at that moment and answers again later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from inside import Spm
from local_world import World
from pool_changes import CHANGES, Attach, Change, Detach, Move, change_at

import storage.service
import storage.spm.program  # noqa: F401 - declares the crash points of leased processes
from storage.errors import IoFailed
from storage.file.io import FileIo
from storage.ondisk.remote_path import mount_name
from storage.spm.control import SpmStatus
from storage.spm.errors import ChangeEnded
from vdsm.common.crashpoints import REGISTRY, CrashPoint
from vdsm.common.errors import AgentError
from vdsm.common.ids import new_uuid

POINTS = sorted(name for name in REGISTRY if name.startswith(tuple(change.points for change in CHANGES)))
# by what their meaning says: the agent itself reaches them
AGENTS = [name for name in POINTS if REGISTRY[name].meaning.endswith("(agent)")]
OTHERS = [name for name in POINTS if name not in AGENTS]
# two domains take part in a move only
DEAD = [(name, "both") for name in OTHERS]
DEAD += [(name, dead) for name in OTHERS if name.startswith(Move.points) for dead in ("master", "second")]
# those of tasks, of the role, and of what no pool has yet: each has a test of its own that goes by the registry
ELSEWHERE = ("volume.", "image.", "task.", "spm.", "domain.create.", "domain.format.", "pool.create.")

AGENT = """
import asyncio, json, os, signal, sys
from pathlib import Path
sys.path.insert(0, HERE)
import pool_changes
from local_world import World
from vdsm.common.errors import AgentError
top, pool_id, domain_id, name, ids = json.loads(sys.argv[1])
async def main():
    world = World(Path(top), pool_id=pool_id, domain_id=domain_id)
    change = getattr(pool_changes, name)(world, *ids)
    await change.start()
    try:
        await change.change()
    except AgentError:  # of the process that reached the point
        pass
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def _prepared(
    tmp_path_factory: pytest.TempPathFactory, make_pool: Callable[..., World]
) -> Callable[[type[Change]], Change]:
    """Each change once, that far; no test touches it."""
    made: dict[type[Change], Change] = {}

    async def prepare(change: Change) -> None:
        await change.world.start()
        await change.world.connect()
        await change.world.become_spm()
        await change.prepare()
        await change.world.stop()

    def prepared(kind: type[Change]) -> Change:
        if kind not in made:
            of = make_pool(version=kind.version)
            world = World(tmp_path_factory.mktemp("prepared"), pool_id=of.pool_id, domain_id=of.domain_id)
            world.take(of)
            made[kind] = kind(world)
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, prepare(made[kind])).result()
        return made[kind]

    return prepared


@pytest.fixture
async def change(point: str, tmp_path: Path, _prepared: Callable[[type[Change]], Change]) -> AsyncIterator[Change]:
    """What the point is one of, about to be made; no agent runs yet."""
    made = _prepared(change_at(point))
    world = World(tmp_path, pool_id=made.world.pool_id, domain_id=made.world.domain_id)
    yield made.elsewhere(world)
    if hasattr(world, "storage"):
        await world.stop()


async def _goes_on(change: Change) -> None:
    await change.ready()
    await change.again()
    async with asyncio.timeout(10):
        while change.world.storage.locks.names:  # of what is done beside the call
            await asyncio.sleep(0.01)
    change.left()


def test_each_point_of_storage_is_died_at_somewhere() -> None:
    modules = [module for name, module in sys.modules.items() if name.startswith("storage.")]
    points = {value.name for module in modules for value in vars(module).values() if isinstance(value, CrashPoint)}
    assert set(POINTS) == {name for name in points if not name.startswith(ELSEWHERE)}
    assert {change_at(point) for point in POINTS} == set(CHANGES)


@pytest.mark.parametrize("point", OTHERS)
async def test_a_process_that_dies_in_the_middle(change: Change, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    await change.start()
    world, spm = change.world, change.world.storage.pool.spm
    marker = world.top / point
    with monkeypatch.context() as patched:
        patched.setenv("VDSM_CRASH_AT", f"{point}:{marker}")
        if spm.status is SpmStatus.SPM:
            await world.storage.pool.stop_spm(world.pool_id)
            await world.become_spm()
        role = spm.pid
        with pytest.raises(AgentError) as died:
            await change.change()
    assert marker.exists()
    if isinstance(change, Attach):  # it has a process of its own: the role is not touched
        assert isinstance(died.value, ChangeEnded)
        assert (spm.status, spm.pid) == (SpmStatus.SPM, role)
        assert change.second not in world.storage.pool.require(world.pool_id).domains
    else:
        await world.until_free()
    await _goes_on(change)


@pytest.mark.parametrize("point", POINTS)
async def test_an_agent_that_dies_in_the_middle(change: Change, point: str) -> None:
    world = change.world
    marker = world.top / point
    arguments = json.dumps([str(world.top), world.pool_id, world.domain_id, type(change).__name__, change.ids])
    code = AGENT.replace("HERE", repr(str(Path(__file__).parent)))
    environment = {"PATH": "/usr/bin:/bin", "VDSM_CRASH_AT": f"{point}:{marker}"}
    died = subprocess.run([sys.executable, "-c", code, arguments], env=environment, check=False)
    assert (died.returncode, marker.exists()) == (-9, True)
    await world.start()
    await _goes_on(change)


@pytest.mark.parametrize(("point", "dead"), DEAD)
async def test_storage_that_dies_in_the_middle_and_comes_back(
    change: Change, monkeypatch: pytest.MonkeyPatch, point: str, dead: str
) -> None:
    await change.start()
    world = change.world
    places = {"master": [world.folder], "second": [change.folder], "both": [world.folder, change.folder]}[dead]
    mounts = {f"{world.paths.mounts}/{mount_name(str(place))}" for place in places}
    gone: set[str] = set()
    reached: list[set[str]] = []
    ask = FileIo._ask

    def reach(at: CrashPoint) -> None:
        if at.name == point and not reached:
            reached.append(change.held())
            gone.update(mounts)

    async def answered(io: FileIo, *args: object, **params: object) -> object:
        if io.mount in gone:
            raise IoFailed(str(args[0]), str(params.get("path")), "EIO", "the storage is gone")
        return await ask(io, *args, **params)

    spm = Spm(world)
    if not change.once:
        await world.storage.pool.stop_spm(world.pool_id)
        await spm.start()
    monkeypatch.setattr(CrashPoint, "reach", reach)
    monkeypatch.setattr(FileIo, "_ask", answered)
    with contextlib.suppress(AgentError):
        await change.inside(spm)
    (held,) = reached
    assert change.under <= held
    gone.clear()
    if change.once:
        assert change.second not in change.held()
    else:
        assert change.held() == {spm.server.role.wanted.master_id}
    if not change.once:  # the role goes on, on whichever master it is
        await spm.create(new_uuid(), new_uuid())
        if spm.server.role.wanted.master_id == world.domain_id:
            await change.inside(spm)
    await spm.stop()
    monkeypatch.undo()
    await _goes_on(change)


@pytest.mark.parametrize("point", AGENTS)
async def test_a_master_that_dies_before_the_pool_s_map_is_written(
    change: Change, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Of a pool whose engine leaves its map to the master."""
    await change.start()
    world, pool = change.world, change.world.storage.pool
    await pool.stop_spm(world.pool_id)
    await pool.disconnect(world.pool_id)
    await pool.connect(world.pool_id, 1, world.domain_id, 1, None)
    await world.become_spm()
    before, after = {world.domain_id}, {world.domain_id, change.second}
    if isinstance(change, Detach):
        await world.storage.pool_domains.attach(world.pool_id, change.second)
        before, after = after, before

    def reach(at: CrashPoint) -> None:
        if at.name == point:
            (world.domain / "dom_md").rename(world.domain / "away")

    with monkeypatch.context() as patched:
        patched.setattr(CrashPoint, "reach", reach)
        with pytest.raises(AgentError):
            await change.change()
    (world.domain / "away").rename(world.domain / "dom_md")
    assert set(pool.require(world.pool_id).domains) == before
    await change.change()
    assert set(pool.require(world.pool_id).domains) == after
    on_master = change.fields(world.domain_id)["POOL_DOMAINS"].split(",")
    assert {entry.partition(":")[0] for entry in on_master} == after
    change.left()
