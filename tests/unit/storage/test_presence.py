# SPDX-License-Identifier: GPL-2.0-or-later
"""Formatting a domain that other hosts may be alive in: real lock daemons, and records as they stand on storage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_ondisk_areas import leader
from two_sanlocks import SanlockHost, line_of, missing, tell

from storage.file.host_ids import read_owners
from storage.file.io import FileIo
from storage.leases import HostIdOwner, Lockspace, presence

pytestmark = pytest.mark.timeout(120)
SPACE = Lockspace("sd", "/sd/ids", 1 << 20, 512, 10)
DEAD = HostIdOwner("dead", 1, 100)

AGENT = """
import asyncio, json, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
import sanlock
from local_world import World
from storage.ondisk.values import DomainClass, DomainKind
from vdsm.common.errors import AgentError

def say(**what):
    print(json.dumps(what), flush=True)

async def line():
    await asyncio.to_thread(sys.stdin.readline)

async def main():
    world = World(Path(json.loads(sys.argv[1])[0]))
    world.folder.mkdir(parents=True)
    await world.start()  # its link under mnt counts as a mount
    catalogue, spec = world.storage.catalogue, str(world.folder)

    async def make():
        await catalogue.create(world.domain_id, DomainKind.POSIXFS, spec, "name",
            domain_class=DomainClass.DATA, version=5, block_size=512, max_hosts=250)

    async def try_format():
        started, refused = time.monotonic(), None
        try:
            await catalogue.format(world.domain_id)
        except AgentError as e:
            refused = str(e)
        say(refused=refused, seconds=time.monotonic() - started, there=world.domain.exists())

    await make()
    await try_format()
    await make()
    mount = next(Path(world.paths.mounts).iterdir())
    sanlock.add_lockspace(world.domain_id.encode(), 1, f"{{mount}}/{{world.domain_id}}/dom_md/ids", iotimeout=1)
    await try_format()  # our own, left behind
    await make()
    say(domain=world.domain_id, ids=str(world.domain / "dom_md" / "ids"))
    await line()  # host two has joined
    await try_format()
    await line()  # host two is dead
    await try_format()
    await world.stop()

asyncio.run(main())
"""

OTHER = """
import json, sys, sanlock
name, ids = json.loads(sys.argv[1])
sanlock.add_lockspace(name.encode(), 2, ids, iotimeout=1)
print("joined", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    if missing():
        pytest.skip(missing())
    folder: Path = tmp_path_factory.mktemp("presence")
    one, two = SanlockHost(folder, "one"), SanlockHost(folder, "two")
    try:
        one.wait()
        two.wait()
        agent = one.start(AGENT.format(here=str(Path(__file__).parent)), str(folder / "world"))
        seen = {"new": json.loads(line_of(agent)), "our own": json.loads(line_of(agent))}
        made = json.loads(line_of(agent))
        assert line_of(two.start(OTHER, made["domain"], made["ids"])) == "joined"
        tell(agent, "joined")
        seen["alive"] = json.loads(line_of(agent))
        two.daemon.kill()
        tell(agent, "dead")
        seen["dead"] = json.loads(line_of(agent))
        yield seen
    finally:
        one.stop()
        two.stop()


def test_a_domain_that_another_host_is_alive_in_is_not_formatted_and_the_host_is_named(
    formats: dict[str, dict[str, Any]],
) -> None:
    seen = formats["alive"]
    assert "in use by host id 2 (two), alive" in seen["refused"] and seen["there"]
    assert seen["seconds"] < 5  # its next renewal


def test_a_domain_that_a_host_died_in_is_formatted_when_that_is_known(formats: dict[str, dict[str, Any]]) -> None:
    seen = formats["dead"]
    assert (seen["refused"], seen["there"]) == (None, False)
    assert seen["seconds"] > 7  # 8 I/O timeouts of 1 s


def test_a_domain_that_nobody_joined_is_formatted_at_once(formats: dict[str, dict[str, Any]]) -> None:
    seen = formats["new"]
    assert (seen["refused"], seen["there"]) == (None, False)
    assert seen["seconds"] < 3


def test_a_lockspace_that_this_host_left_joined_keeps_no_domain_from_being_formatted(
    formats: dict[str, dict[str, Any]],
) -> None:
    seen = formats["our own"]
    assert (seen["refused"], seen["there"]) == (None, False)


class Scripted:
    lockspace = SPACE

    def __init__(self, *looks: dict[int, HostIdOwner]) -> None:
        self._looks = list(looks)
        self.asked = 0

    async def host_id_owners(self) -> Mapping[int, HostIdOwner]:
        self.asked += 1
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_S", 0.001)


@pytest.mark.usefixtures("_quick")
async def test_a_host_that_comes_while_a_dead_one_is_watched_is_alive() -> None:
    new = HostIdOwner("new", 1, 5)
    assert await presence.alive(Scripted({3: DEAD}, {3: DEAD}, {3: DEAD, 4: new})) == {4: new}


@pytest.mark.usefixtures("_quick")
async def test_a_host_that_gives_its_id_back_is_waited_for_no_longer() -> None:
    assert await presence.alive(Scripted({3: DEAD}, {3: DEAD}, {})) == {}


async def test_free_records_need_one_look() -> None:
    place = Scripted({})
    assert await presence.alive(place) == {}
    assert place.asked == 1


async def test_all_host_ids_in_use_are_read_free_and_blank_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    records = [leader(timestamp=7), leader(timestamp=0), bytes(512), b"x" * 512]
    path.write_bytes(b"".join(records).ljust(1 << 20, b"\0"))
    io = FileIo(str(tmp_path))
    owners = await read_owners(io, Lockspace("sd", str(path), 1 << 20, 512, 10))
    assert owners[1] == HostIdOwner("SDM", 7, 7)
    assert sorted(owners) == [1, 4]  # what cannot be read may be somebody's
    path.unlink()
    assert await read_owners(io, Lockspace("sd", str(path), 1 << 20, 512, 10)) == {}
    await io.close()
