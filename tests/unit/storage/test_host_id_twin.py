# SPDX-License-Identifier: GPL-2.0-or-later
"""A host id that another host uses, as an engine sees it: real lock daemons of two hosts, a real SPM process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from two_sanlocks import SanlockHost, line_of, missing, tell

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "-"), pytest.mark.timeout(180)]

AGENT = """
import asyncio, json, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from local_world import World
from storage.ondisk.values import DomainClass, DomainKind

def say(**what):
    print(json.dumps(what), flush=True)

async def main():
    world = World(Path(json.loads(sys.argv[1])[0]))
    world.folder.mkdir(parents=True)
    await world.start()  # its link under mnt counts as a mount
    spec = str(world.folder)
    await world.storage.catalogue.create(world.domain_id, DomainKind.POSIXFS, spec, "name",
        domain_class=DomainClass.DATA, version=5, block_size=512, max_hosts=250)
    await world.storage.new_pools.create(world.pool_id, "pool", world.domain_id, 1, [world.domain_id], {{}})
    say(domain=world.domain_id, ids=str(world.domain / "dom_md" / "ids"))
    await asyncio.to_thread(sys.stdin.readline)  # host two has joined with our id
    await world.connect()
    started = time.monotonic()
    status = None
    async with asyncio.timeout(60):
        task_id = await world.storage.tasks.start_spm(world.pool_id, None)
        while (status := dict(await world.storage.tasks.status(task_id)))["taskState"] != "finished":
            await asyncio.sleep(0.1)
        while "reason" not in (shown := world.storage.repo_stats()[world.domain_id]):
            await asyncio.sleep(0.1)
    say(status=status, seconds=time.monotonic() - started, shown=shown)
    await world.stop()

asyncio.run(main())
"""

TWIN = """
import json, sys, sanlock
name, ids = json.loads(sys.argv[1])
sanlock.add_lockspace(name.encode(), 1, ids, iotimeout=1)
print("joined", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("twin")
    one, two = SanlockHost(folder, "one"), SanlockHost(folder, "two")
    try:
        one.wait()
        two.wait()
        agent = one.start(AGENT.format(here=str(Path(__file__).parent)), str(folder / "world"))
        made = json.loads(line_of(agent))
        twin = two.start(TWIN, made["domain"], made["ids"])
        assert line_of(twin) == "joined"
        tell(agent, "joined")
        seen = json.loads(line_of(agent))
        yield seen
    finally:
        one.stop()
        two.stop()


def test_the_start_of_the_spm_fails_with_the_fields_code_and_says_who_has_the_id(reported: dict[str, Any]) -> None:
    status = reported["status"]
    assert (status["code"], status["taskResult"]) == (661, "cleanSuccess")
    assert "Host id 1" in status["message"] and "host 'two' holds it" in status["message"]
    assert reported["seconds"] < 45  # before the lock daemon itself gives up


def test_the_domain_is_valid_and_its_report_says_who_has_the_id(reported: dict[str, Any]) -> None:
    shown = reported["shown"]
    assert (shown["code"], shown["valid"], shown["acquired"]) == (0, True, False)
    assert "host 'two' holds it" in shown["reason"]
