# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to exports of a real server under active domains, as the engine sees it: told, and over, within 15 s."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from contrib.lab import engine
from contrib.lab.microvm import storage_server
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.san import SERVER, San, address
from contrib.lab.microvm.storage_faults import export_changed, export_owned, storage_hung
from vdsm.client import Client

pytestmark = [pytest.mark.cost(90), pytest.mark.timeout(900), pytest.mark.usefixtures("nfs")]

NFS = 1
TOLD_S = 15.0
# an emulated host on a busy machine; who waited for a dead server would wait for 60 s
LOOK_S = 10.0
# sanlock of the lab is root
USUAL = "rw,no_root_squash"
EXPORTS = {"turns": "3", "gone": "4.2", "mapped": "3", "owned": "4.2"}


@dataclass
class Pool:
    client: Client
    pool_id: str
    local: str
    domains: dict[str, str]

    async def stats(self) -> dict[str, Any]:
        began = time.monotonic()
        answer: dict[str, Any] = await self.client.call("Host.getStorageRepoStats", {"domains": []}, timeout_s=60)
        await self.client.call("StorageDomain.getInfo", {"storagedomainID": self.local}, timeout_s=60)
        assert answer[self.local]["valid"] is True
        assert time.monotonic() - began < LOOK_S, "a bad domain delays verbs of another"
        return answer

    async def until(self, codes: dict[str, int]) -> None:
        async def look() -> bool:
            found = await self.stats()
            seen = {name: found[self.domains[name]] for name in codes}
            return {name: stat["code"] for name, stat in seen.items()} == codes and all(
                (stat["valid"] is True) is (stat["code"] == 0) for stat in seen.values()
            )

        began = time.monotonic()
        await engine.until(f"{codes}", look, timeout_s=TOLD_S + LOOK_S)
        print(f"{codes} after {time.monotonic() - began:.1f} s")


@pytest.fixture(scope="module")
def agent(san: San, nfs: dict[str, str]) -> Iterator[MicroHost]:
    host = san.hosts[0]
    host.start_agent(timeout_s=300)
    yield host
    host.kill_agent()
    host.kill_root_helper()


@contextlib.asynccontextmanager
async def pool_on(agent: MicroHost, san: San) -> AsyncIterator[Pool]:
    wanted = {}
    for name, version in EXPORTS.items():
        path = storage_server.export(san.server, name, USUAL)[version]
        where = f"{address('san-a', SERVER)}:{path}"
        wanted[name] = {"id": str(uuid.uuid4()), "connection": where, "protocol_version": version}
    async with agent.client() as client:
        local = engine.local_connection()
        local_id = await engine.create_domain(client, engine.LOCALFS, local)
        made = await asyncio.gather(*(engine.create_domain(client, NFS, wanted[name]) for name in EXPORTS))
        domains = dict(zip(EXPORTS, made, strict=True))
        pool_id = str(uuid.uuid4())
        everything = [local_id, *made]
        params = {"storagepoolID": pool_id, "name": "pool", "masterSdUUID": local_id, "masterVersion": 1}
        await client.call("StoragePool.create", {**params, "domainList": everything}, timeout_s=120)
        joined = {"storagepoolID": pool_id, "hostID": 1, "scsiKey": "key", "masterSdUUID": local_id, "masterVersion": 1}
        active = dict.fromkeys(everything, "active")
        await client.call("StoragePool.connect", {**joined, "domainDict": active}, timeout_s=120)
        pool = Pool(client, pool_id, local_id, domains)
        try:
            await engine.until("all domains are well", lambda: _well(pool), timeout_s=90)
            yield pool
        finally:
            left = {"storagepoolID": pool_id, "hostID": 1, "scsiKey": "key"}
            await client.call("StoragePool.disconnect", left, timeout_s=120)
            for kind, connections in ((engine.LOCALFS, [local]), (NFS, list(wanted.values()))):
                gone = {"storagepoolID": engine.BLANK, "domainType": kind, "connectionParams": connections}
                await client.call("StoragePool.disconnectStorageServer", gone, timeout_s=120)


async def _well(pool: Pool) -> bool:
    found = await pool.client.call("Host.getStorageRepoStats", {"domains": []}, timeout_s=60)
    return all(stat["valid"] and stat["acquired"] for stat in found.values())


async def test_what_a_server_does_to_its_exports_is_told_and_over_in_time(agent: MicroHost, san: San) -> None:
    well = dict.fromkeys(EXPORTS, 0)
    async with pool_on(agent, san) as pool:
        with contextlib.ExitStack() as faults:
            faults.enter_context(export_changed(san.server, "turns", USUAL, "ro,no_root_squash"))
            faults.enter_context(export_changed(san.server, "gone", USUAL))
            faults.enter_context(export_changed(san.server, "mapped", USUAL, "rw,all_squash"))
            faults.enter_context(export_owned(san.server, "owned", "0:0"))
            await pool.until({"turns": 385, "gone": 384, "mapped": 385, "owned": 469})
        await pool.until(well)
        with storage_hung(san.server):
            await pool.until(dict.fromkeys(EXPORTS, 200))
        await pool.until(well)
