# SPDX-License-Identifier: GPL-2.0-or-later
"""Lockspaces that a cut-off creation, or a killed agent, left joined: a real lock daemon, agents that really die."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from two_sanlocks import SanlockHost, line_of, missing

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "-"), pytest.mark.timeout(180)]

PRELUDE = """
import asyncio, json, os, signal, sys
from pathlib import Path
sys.path.insert(0, HERE)
import sanlock
from local_world import World
from storage.ondisk.values import DomainClass, DomainKind, DomainStatus
from storage.servers.kinds import LocalFolder

top, pool_id, master, other = json.loads(sys.argv[1])
world = World(Path(top), pool_id=pool_id, domain_id=master)
second = Path(top) / "second"
IDS = {"master": master, "other": other}

def joined():
    return {space["lockspace"].decode(): space["host_id"] for space in sanlock.get_lockspaces()}

def say(**what):
    print(json.dumps(what), flush=True)

async def until(condition):
    async with asyncio.timeout(40):
        while not condition():
            await asyncio.sleep(0.05)

async def start():
    world.folder.mkdir(parents=True, exist_ok=True)
    second.mkdir(exist_ok=True)
    await world.start()  # its links under mnt count as mounts
    await world.storage.connections.connect([LocalFolder("d", str(second))])

async def create():
    await world.storage.new_pools.create(pool_id, "pool", master, 1, [master, other], {})

async def connect(**statuses):
    await world.storage.pool.connect(pool_id, 1, master, 1,
        {IDS[name]: DomainStatus(status) for name, status in statuses.items()})

def held(*ids):
    shown = world.storage.repo_stats()
    return all(shown[i]["acquired"] for i in ids)

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""

CREATOR = """
async def main():
    await start()
    for domain_id, folder in ((master, world.folder), (other, second)):
        await world.storage.catalogue.create(domain_id, DomainKind.POSIXFS, str(folder), "name",
            domain_class=DomainClass.DATA, version=5, block_size=512, max_hosts=250)
    os.environ["VDSM_CRASH_AT"] = "pool.create.others"
    try:
        await create()
        failed = ""
    except Exception as e:
        failed = str(e)
    say(failed=failed, joined=joined())
    del os.environ["VDSM_CRASH_AT"]
    creating = asyncio.create_task(create())
    await until(lambda: 250 in joined().values())
    say(joined=joined())
    die()
asyncio.run(main())
"""

RESTARTED = """
async def main():
    before = joined()
    await start()
    await until(lambda: not joined())
    say(before=before, after=joined())
    await create()
    say(after_creation=joined())
    await connect(master="Active", other="Active")
    await until(lambda: held(master, other))
    say(joined=joined())
    die()
asyncio.run(main())
"""

UNOPENED = """
async def main():
    await start()
    await connect(master="Active", other="Active")
    await until(lambda: not world.storage.repo_stats()[other]["valid"] and world.storage.repo_stats()[other]["actual"])
    say(before=joined())
    await connect(master="Active", other="Attached")
    say(after=joined())
    die()
asyncio.run(main())
"""

ATTACHED = """
async def main():
    mount = next(path for path in Path(world.paths.mounts).iterdir() if path.resolve() == second)
    sanlock.add_lockspace(other.encode(), 1, f"{mount}/{other}/dom_md/ids", iotimeout=1)
    await start()
    await connect(master="Active")
    say(joined=joined())
    die()
asyncio.run(main())
"""

IDS = [f"{n}{n}{n}{n}{n}{n}{n}{n}-0000-4000-8000-000000000000" for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What each agent saw: one run, since joining takes seconds."""
    folder: Path = tmp_path_factory.mktemp("left")
    prelude = PRELUDE.replace("HERE", repr(str(Path(__file__).parent)))
    host = SanlockHost(folder, "one")
    metadata = folder / "world" / "second" / IDS[2] / "dom_md" / "metadata"
    said: dict[str, list[dict[str, Any]]] = {}

    def run(name: str, code: str, lines: int) -> None:
        agent = host.start(prelude + code, str(folder / "world"), *IDS)
        said[name] = [json.loads(line_of(agent) or "{}") for _ in range(lines)]
        agent.wait(30)

    try:
        host.wait()
        run("creator", CREATOR, 2)
        run("restarted", RESTARTED, 3)
        metadata.rename(metadata.with_suffix(".away"))
        run("unopened", UNOPENED, 2)
        metadata.with_suffix(".away").rename(metadata)
        run("attached", ATTACHED, 1)
        yield said
    finally:
        host.stop()


def test_a_creation_whose_process_dies_leaves_no_host_id_behind(seen: dict[str, list[dict[str, Any]]]) -> None:
    cut_off, again = seen["creator"]
    assert "ended" in cut_off["failed"]
    assert cut_off["joined"] == {}
    assert again["joined"] == {IDS[1]: 250}


def test_an_agent_that_starts_again_gives_the_reserved_host_id_back(seen: dict[str, list[dict[str, Any]]]) -> None:
    found, created, connected = seen["restarted"]
    assert found == {"before": {IDS[1]: 250}, "after": {}}
    assert created["after_creation"] == {}
    assert connected["joined"] == {IDS[1]: 1, IDS[2]: 1}


def test_a_domain_that_was_not_opened_since_a_restart_is_left_when_it_is_deactivated(
    seen: dict[str, list[dict[str, Any]]],
) -> None:
    before, after = seen["unopened"]
    assert before["before"] == {IDS[1]: 1, IDS[2]: 1}
    assert after["after"] == {IDS[1]: 1}


def test_what_an_attach_that_was_cut_off_joined_is_left_when_the_pool_is_connected(
    seen: dict[str, list[dict[str, Any]]],
) -> None:
    assert seen["attached"][0]["joined"] == {IDS[1]: 1}
