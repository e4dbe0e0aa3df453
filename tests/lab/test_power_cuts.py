# SPDX-License-Identifier: GPL-2.0-or-later
"""The power goes at a step boundary: nothing acknowledged is lost, nothing half done is visible.

The host's kernel stops at the crash point without writing back what it held in memory; the disk keeps what had
reached it. Then the host boots from that disk, and an engine leads it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contrib.lab import engine
from contrib.lab.control import HostFailed
from contrib.lab.fabric import Fabric
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.spec import Nic
from contrib.lab.spec import LOCAL_FOLDER
from tests.decoder import domain as decoder
from tests.failure_logs import watched
from tests.hosts.storage_flows import clear_all, image_params, join, lead, new_volume, run_task, volume_params
from tests.soak import some
from vdsm.client import Client, ClientError, RpcError

pytestmark = pytest.mark.cost(75)

# Each is a minute: a cut, a boot, an agent. The test command has one for each way in which the disk can lack what was
# asked: files that were made, files that were removed, a size and a text that were answered, records of the host.
# Unit tests take away what was not synced at every point, `make soak` cuts at each (docs/testing.md).
CREATE = (
    "volume.create.folder",
    "volume.create.payload",
    "volume.create.format",
    "volume.create.parent",
    "volume.create.metadata",
    "task.start.stored",
    "task.undo.stored",
    "spm.volume.made",
    "task.end.stored",
)
DELETE = (
    "volume.delete.illegal",
    "volume.delete.metadata",
    "volume.delete.parent",
    "volume.delete.payload",
)
EXTEND = ("spm.volume.sized",)
UNCOMMITTED = ("network.setup.step.bridge_add", "network.setup.verified")
COMMITTED = ("network.commit.intent", "network.commit.written")
ACKNOWLEDGED = ("",)

ASKED = "/run/lab-crash-at"
ENVIRONMENT = {"VDSM_CRASH_AT": f"@{ASKED}", "VDSM_CRASH_POWER": "/proc/sysrq-trigger"}
SLOW_S = 120.0
# the cut ends a call in whatever way its connection ends
CUT = (RpcError, ClientError, HostFailed, TimeoutError, OSError)
ADDRESS = "10.38.0.1"
UNCHECKED = {"connectivityCheck": "false", "commitOnSuccess": True}
MIB = 1 << 20


@pytest.fixture(scope="module")
def survivor() -> Iterator[MicroHost]:
    with Fabric(("management",)) as fabric:
        nic = Nic("eth0", "management", "52:54:00:38:00:01", f"{ADDRESS}/24")
        with MicroHost("survivor", fabric=fabric, nics=(nic,), memory_mib=1280) as host, watched(host):
            yield host


@pytest.fixture(scope="module")
def pool(survivor: MicroHost) -> engine.Pool:
    async def make() -> engine.Pool:
        async with _agent(survivor) as client:
            return await engine.new_pool(client, domain_type=engine.LOCALFS)

    return asyncio.run(make())


@contextlib.asynccontextmanager
async def _agent(host: MicroHost) -> AsyncIterator[Client]:
    if host.pid == 0:
        host.start()
    if not host.agent_pid or not host.agent_lives:
        host.run(["sh", "-c", f"rm -f {ASKED}; chmod 666 /proc/sysrq-trigger"])
        host.start_agent(ENVIRONMENT)
    async with host.client() as client:
        yield client


async def _cut_in(host: MicroHost, point: str, flow: Callable[[], Awaitable[object]]) -> None:
    """Run the flow until the power goes at that point; without a point, right after the flow's last answer."""
    if point:
        host.put(ASKED, point.encode())
        with contextlib.suppress(*CUT):
            async with asyncio.timeout(SLOW_S):
                await flow()
        host.wait_ended(timeout_s=30)
        assert "GUEST_PANICKED" not in [event["event"] for event in host.events()]
    else:
        await flow()
        host.power_cut()


async def _note(client: Client, volume: engine.Volume) -> str:
    """Change a volume's description; the text that was acknowledged."""
    text = f"note {uuid.uuid4()}"
    await client.call("Volume.setDescription", {**volume.ids, "description": text}, timeout_s=SLOW_S)
    return text


async def _kept(client: Client, pool: engine.Pool) -> tuple[engine.Volume, str]:
    """A volume and its description, both acknowledged a moment before the cut."""
    await join(client, pool)
    await lead(client, pool)
    volume = new_volume(pool)
    await run_task(client, "Volume.create", volume_params(volume, volFormat=5, preallocate=2))
    return volume, await _note(client, volume)


async def _check(host: MicroHost, client: Client, pool: engine.Pool, kept: engine.Volume, note: str) -> None:
    await join(client, pool)
    await lead(client, pool)
    tasks = await clear_all(client)
    assert all(task["taskResult"] in ("success", "cleanSuccess") for task in tasks.values()), tasks
    info = await client.call("Volume.getInfo", kept.ids)
    assert (info["description"], info["legality"], info["status"]) == (note, "LEGAL", "OK")
    ids = {"storagedomainID": pool.domain_id, "storagepoolID": pool.pool_id}
    listed: dict[str, set[str]] = {}
    for image in await client.call("StorageDomain.getImages", {"storagedomainID": pool.domain_id}):
        listed[image] = set(await client.call("StorageDomain.getVolumes", {**ids, "imageID": image}))
        for volume in listed[image]:
            whole = {**ids, "imageID": image, "volumeID": volume}
            await client.call("Volume.getQemuImageInfo", whole, timeout_s=SLOW_S)
    decoded = _decoded(host, pool)
    assert {image: set(volumes) for image, volumes in decoded.images.items()} == listed


def _decoded(host: MicroHost, pool: engine.Pool) -> Any:
    """What the independent decoder finds in a copy of the domain."""
    packed = host.run(["tar", "-C", LOCAL_FOLDER, "-cSf", "-", pool.domain_id], timeout_s=SLOW_S).stdout
    copy = host.spec.path("copy")
    copy.mkdir()
    subprocess.run(["tar", "-C", copy, "-xf", "-"], input=packed, check=True)
    try:
        return decoder.decode(Path(copy, pool.domain_id))
    finally:
        shutil.rmtree(copy)


async def _clean(client: Client, pool: engine.Pool) -> None:
    for image in await client.call("StorageDomain.getImages", {"storagedomainID": pool.domain_id}):
        await run_task(client, "Image.delete", image_params(new_volume(pool, image)))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", some((*CREATE, *ACKNOWLEDGED), ["volume.create.metadata"]))
async def test_a_cut_while_a_volume_is_created(survivor: MicroHost, pool: engine.Pool, point: str) -> None:
    async with _agent(survivor) as client:
        kept, note = await _kept(client, pool)
        leaf = new_volume(pool, kept.image_id)
        below = {"srcImgUUID": kept.image_id, "srcVolUUID": kept.volume_id}

        async def create() -> None:
            await run_task(client, "Volume.create", volume_params(leaf, **below))

        await _cut_in(survivor, point, create)
    async with _agent(survivor) as client:
        await _check(survivor, client, pool, kept, note)
        if not point:
            assert (await client.call("Volume.getInfo", leaf.ids))["parent"] == kept.volume_id
        await _clean(client, pool)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", some(DELETE, ["volume.delete.payload"]))
async def test_a_cut_while_a_volume_is_deleted(survivor: MicroHost, pool: engine.Pool, point: str) -> None:
    async with _agent(survivor) as client:
        kept, note = await _kept(client, pool)
        leaf = new_volume(pool, kept.image_id)
        below = {"srcImgUUID": kept.image_id, "srcVolUUID": kept.volume_id}
        await run_task(client, "Volume.create", volume_params(leaf, **below))

        async def delete() -> None:
            await run_task(client, "Volume.delete", {**leaf.ids, "postZero": "false", "force": "false"})

        await _cut_in(survivor, point, delete)
    async with _agent(survivor) as client:
        await _check(survivor, client, pool, kept, note)
        await _clean(client, pool)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", some((*EXTEND, *ACKNOWLEDGED), ACKNOWLEDGED))
async def test_a_cut_while_a_volume_s_metadata_changes(survivor: MicroHost, pool: engine.Pool, point: str) -> None:
    async with _agent(survivor) as client:
        kept, note = await _kept(client, pool)

        async def extend() -> None:
            await run_task(client, "Volume.extendSize", {**kept.ids, "newSize": str(16 * MIB)})

        await _cut_in(survivor, point, extend)
    async with _agent(survivor) as client:
        await _check(survivor, client, pool, kept, note)
        info = await client.call("Volume.getInfo", kept.ids)
        sizes = {"": [16 * MIB]}.get(point, [8 * MIB, 16 * MIB])
        assert int(info["capacity"]) in sizes
        assert int(info["apparentsize"]) == int(info["capacity"])
        await _clean(client, pool)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", some((*UNCOMMITTED, *COMMITTED, *ACKNOWLEDGED), ["network.commit.written"]))
async def test_a_cut_while_networks_change(survivor: MicroHost, point: str) -> None:
    name = f"net{uuid.uuid4().hex[:6]}"
    async with _agent(survivor) as client:
        wanted = {"nic": "eth0", "ipaddr": ADDRESS, "prefix": "24"}
        params = {"networks": {name: wanted}, "bondings": {}, "options": UNCHECKED}

        async def change() -> None:
            await client.call("Host.setupNetworks", params, timeout_s=SLOW_S)

        await _cut_in(survivor, point, change)
    async with _agent(survivor) as client:
        networks = (await client.call("Host.getCapabilities", timeout_s=SLOW_S))["networks"]
        assert (name in networks) == (point not in UNCOMMITTED)
        assert survivor.run(["ip", "link", "show", name], check=False).returncode == (point in UNCOMMITTED)
        if name in networks:
            assert networks[name]["addr"] == ADDRESS
            gone = {"networks": {name: {"remove": "true"}}, "bondings": {}, "options": UNCHECKED}
            await client.call("Host.setupNetworks", gone, timeout_s=SLOW_S)
