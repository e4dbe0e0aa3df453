# SPDX-License-Identifier: GPL-2.0-or-later
"""NFS as the agent connects it: domains on real exports, exports that can't be used, a server that dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from contrib.checks import pages
from contrib.lab import engine
from contrib.lab.agent_life import AGENT_SOCKET
from contrib.lab.microvm import storage_server
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.san import SERVER, San, address
from contrib.lab.microvm.storage_faults import storage_hung
from tests.soak import SOAK
from vdsm.cli.connection import SOCKET_VARIABLE
from vdsm.client import Client

pytestmark = [pytest.mark.cost(25), pytest.mark.timeout(900), pytest.mark.usefixtures("nfs")]

NFS = 1
MOUNTS = "/rhev/data-center/mnt"
SLOW_S = 300.0
"""For calls, and starts, of an emulated host."""
ON_SERVER, ON_HOST, GONE = "the NFS server", "a host", "a host whose server is gone"
COMMAND = f'vdsm() {{ {sys.executable} -m vdsm.cli "$@"; }}'
# the lab's server has an export with fsid=0, below which paths of version 4 begin; its hosts' sanlock is root
LAB = (
    ("/srv/vms 192.0.2.0/24(", f"{storage_server.EXPORT}/vms *(no_root_squash,"),
    ("/srv/vms", f"{storage_server.EXPORT}/vms"),
    (f"server:{storage_server.EXPORT}/vms", "server:/vms"),
)


@pytest.fixture(scope="module")
def agent(san: San, nfs: dict[str, str]) -> Iterator[MicroHost]:
    host = san.hosts[0]
    host.start_agent(timeout_s=SLOW_S)
    yield host
    host.kill_agent()
    host.kill_root_helper()


def connection(path: str, **fields: str) -> dict[str, str]:
    return {"id": str(uuid.uuid4()), "connection": f"{address('san-a', SERVER)}:{path}", **fields}


async def ask(client: Client, verb: str, *connections: dict[str, str]) -> list[dict[str, Any]]:
    params = {"storagepoolID": engine.BLANK, "domainType": NFS, "connectionParams": list(connections)}
    answer: list[dict[str, Any]] = await client.call(f"StoragePool.{verb}StorageServer", params, timeout_s=SLOW_S)
    return answer


def mounted(host: MicroHost) -> dict[str, set[str]]:
    """What is mounted of NFS below ``mnt``: its path on the server, with its options."""
    lines = [line.split() for line in host.run(["cat", "/proc/mounts"]).stdout.decode().splitlines()]
    found = [fields for fields in lines if fields[2].startswith("nfs") and fields[1].startswith(MOUNTS)]
    return {fields[0].partition(":")[2]: set(fields[3].split(",")) for fields in found}


@pytest.mark.parametrize("version", ["3", "4.2"] if SOAK else ["3"])  # the walkthrough below has 4.2
async def test_a_pool_lives_on_an_export(agent: MicroHost, san: San, version: str) -> None:
    # sanlock of the lab is root: elsewhere it has a user of its own, and root needs no rights there
    path = storage_server.export(san.server, f"pool-{version}", "rw,no_root_squash")[version]
    wanted = connection(path, protocol_version=version)
    async with agent.client() as client:
        pool = await engine.new_pool(client, domain_type=NFS, connection=wanted)
        volume = await engine.create_volume(client, pool, size_bytes=1 << 20)
        (used,) = await ask(client, "disconnect", wanted)
        assert (used["status"], f"domain {pool.domain_id} of the pool" in used["reason"]) == (452, True)
        options = mounted(agent)[path]
        assert {"soft", "nosharecache", "timeo=100", "retrans=3", f"vers={version}", "nosuid"} <= options
        assert ("nolock" in options) is (version == "3")
        await engine.remove_pool(client, pool)
        assert path not in mounted(agent)
    on_server = f"{storage_server.EXPORT}/pool-{version}/{pool.domain_id}"
    metadata = san.server.get(f"{on_server}/dom_md/metadata").decode().splitlines()
    assert {"TYPE=NFS", "CLASS=Data", "VERSION=5", f"REMOTE_PATH={wanted['connection']}"} <= set(metadata)
    owner = san.server.run(["stat", "-c", "%u:%g %a", f"{on_server}/images/{volume.image_id}/{volume.volume_id}"])
    assert owner.stdout == b"36:36 660\n"


async def test_an_export_that_cannot_be_used_says_what_its_server_has_to_change(agent: MicroHost, san: San) -> None:
    unusable = {
        storage_server.export(san.server, "read-only", "ro")["3"]: (469, "exports line needs rw"),
        storage_server.export(san.server, "squashed", "rw,all_squash")["3"]: (469, "no all_squash"),
        storage_server.export(san.server, "foreign", owner="0:0")["3"]: (469, "chown 36:36"),
        f"{storage_server.EXPORT}/none": (477, "no such export"),
    }
    path = storage_server.export(san.server, "comma,ü")["3"]
    good = connection(path)
    async with agent.client() as client:
        *refused, taken = await ask(client, "connect", *map(connection, unusable), good)
        for answer, (status, reason) in zip(refused, unusable.values(), strict=True):
            assert answer["status"] == status
            assert reason in answer["reason"]
        assert taken["status"] == 0
        assert mounted(agent).keys() & {*unusable, path} == {path}
        # what was connected stays so when its server changes its mind, and is left in order
        storage_server.withdraw(san.server, "comma,ü")
        (left,) = await ask(client, "disconnect", good)
        assert left["status"] == 0
    assert path not in mounted(agent)


async def test_a_server_that_died_is_told_in_time_and_cut_off(agent: MicroHost, san: San) -> None:
    three = connection(storage_server.export(san.server, "dying")["3"], protocol_version="3")
    four = connection(storage_server.export(san.server, "too")["4.2"], protocol_version="4.2")
    async with agent.client() as client:
        assert [answer["status"] for answer in await ask(client, "connect", three, four)] == [0, 0]
        with storage_hung(san.server):
            began = time.monotonic()
            new = connection("/new", protocol_version="4")
            (told,), left = await asyncio.gather(ask(client, "connect", new), ask(client, "disconnect", three, four))
            took = time.monotonic() - began
            assert (told["status"], "can't be reached" in told["reason"]) == (477, True)
            assert [answer["status"] for answer in left] == [0, 0]
            assert not {c["connection"].partition(":")[2] for c in (three, four)} & mounted(agent).keys()
        print(f"a dead server: told and left in {took:.1f} s")
        assert took < 60
        assert [answer["status"] for answer in await ask(client, "connect", three)] == [0]
        assert [answer["status"] for answer in await ask(client, "disconnect", three)] == [0]


@pytest.mark.cost(60)
async def test_the_walkthrough_of_the_page_does_what_it_says(agent: MicroHost, san: San) -> None:
    """The host's commands run beside it, over its agent's socket: an emulated host takes seconds to begin each."""
    agent.run(["sh", "-c", f"echo '{address('san-a', SERVER)} server' >> /etc/hosts"])
    typed = {**os.environ, SOCKET_VARIABLE: agent.outer_socket(AGENT_SOCKET)}
    blocks = [block for block in pages.blocks(pages.TOP / "docs/storage.md") if block.on]
    ids = next(block.text for block in blocks if block.on == ON_HOST)
    assert {block.on for block in blocks} == {ON_SERVER, ON_HOST, GONE}
    began, options = time.monotonic(), set[str]()
    for block in blocks:
        script = "\n".join(["set -eu", COMMAND, ids, block.text])
        for on_page, here in LAB:
            script = script.replace(on_page, here)
        async with _gone(agent, san) if block.on == GONE else contextlib.AsyncExitStack():
            if block.on == ON_SERVER:
                done = san.server.run(["bash", "-c", script], timeout_s=SLOW_S, check=False)
            else:
                done = subprocess.run(
                    ["bash", "-c", script], env=typed, cwd=pages.TOP, capture_output=True, timeout=SLOW_S
                )
        told = f"line {block.line}:\n{done.stdout.decode()}\n{done.stderr.decode()}"
        assert done.returncode == 0, told
        assert [text for text in block.shows if text not in done.stdout.decode()] == [], told
        print(f"line {block.line} after {time.monotonic() - began:.1f} s")
        options |= mounted(agent).get("/vms", set())
    assert {"soft", "nosharecache", "timeo=100", "retrans=3", "vers=4.2", "nosuid"} <= options
    assert "nolock" not in options
    assert "/vms" not in mounted(agent)
    metadata = san.server.run(["sh", "-c", f"cat {storage_server.EXPORT}/vms/*/dom_md/metadata"]).stdout.splitlines()
    assert {b"TYPE=NFS", b"CLASS=Data", b"VERSION=5", b"REMOTE_PATH=server:/vms"} <= set(metadata)


@contextlib.asynccontextmanager
async def _gone(host: MicroHost, san: San) -> AsyncIterator[None]:
    """The server, as the host has noticed."""
    with storage_hung(san.server):
        async with host.client() as client:

            async def bad() -> bool:
                stats = await client.call("Host.getStorageRepoStats", timeout_s=SLOW_S)
                return bool(stats) and not any(entry["valid"] for entry in stats.values())

            await engine.until("the host notices", bad, timeout_s=60)
        yield
