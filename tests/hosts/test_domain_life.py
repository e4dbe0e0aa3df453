# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains of every sort over the API of one real host: what people put into them, old formats, lost pools."""

from __future__ import annotations

import asyncio
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from contrib.lab import engine
from contrib.lab.host import PrivateHost
from tests.decoder import domain as decoder
from vdsm.client import Client, RpcError

pytestmark = pytest.mark.cost(2)

ISO_CLASS = 2
PEOPLES = "images/11111111-1111-1111-1111-111111111111"


@pytest.fixture(scope="module")
def _old_pool(host: PrivateHost) -> engine.Pool:
    """On a local folder, of version 3: this host is SPM."""
    if not host.agent_lives:
        host.start_agent()

    async def make() -> engine.Pool:
        async with host.client() as client:
            connection = engine.local_connection()
            domain_id = await engine.create_domain(client, engine.LOCALFS, connection, version=3)
            pool_id = await engine.create_pool(client, domain_id)
            await engine.connect_pool(client, pool_id, domain_id)
            await engine.become_spm(client, pool_id)
            return engine.Pool(pool_id, domain_id, engine.LOCALFS, connection)

    with ThreadPoolExecutor(1) as thread:  # a loop of its own: this fixture outlives that of the test
        return thread.submit(asyncio.run, make()).result()


@pytest.fixture
def old_pool(agent_host: PrivateHost, _old_pool: engine.Pool) -> engine.Pool:
    return _old_pool


class Place:
    """A folder with a domain of its own."""

    def __init__(self, host: PrivateHost, client: Client, pool: engine.Pool) -> None:
        self.folder = f"{engine.LOCAL_FOLDER}/{uuid.uuid4()}"
        host.run(["install", "-d", "-o", "36", "-g", "36", self.folder])
        self.host, self.client = host, client
        self.connection = engine.local_connection(self.folder)
        self.domain_id = str(uuid.uuid4())
        self.ids = {"storagedomainID": self.domain_id, "storagepoolID": pool.pool_id}

    @property
    def path(self) -> Path:
        return self.host.path(f"{self.folder}/{self.domain_id}")

    @property
    def fields(self) -> dict[str, str]:
        return dict(decoder.decode(self.path).fields)

    async def make(self, **changes: Any) -> None:
        await engine.connect_server(self.client, engine.LOCALFS, self.connection)
        params = {
            "storagedomainID": self.domain_id,
            "domainType": engine.LOCALFS,
            "typeArgs": self.folder,
            "name": "second",
            "domainClass": 1,
            "version": 3,
            **changes,
        }
        await self.client.call("StorageDomain.create", params)

    async def attach(self) -> None:
        await self.client.call("StorageDomain.attach", self.ids, timeout_s=60)

    async def disconnect(self) -> None:
        params = {"storagepoolID": engine.BLANK, "domainType": 4, "connectionParams": [self.connection]}
        assert [a["status"] for a in await self.client.call("StoragePool.disconnectStorageServer", params)] == [0]

    async def lose(self) -> None:
        """The pool has it, its storage is away."""
        await self.make()
        await self.attach()
        await self.disconnect()

    async def find(self) -> None:
        """Dropped by the pool by force, and there again: it names the pool still."""
        await self.lose()
        await self.detach_by_force(self.ids["storagepoolID"])
        await engine.connect_server(self.client, engine.LOCALFS, self.connection)
        assert self.fields["POOL_UUID"] == self.ids["storagepoolID"]

    async def detach_by_force(self, pool_id: str) -> None:
        params = {**self.ids, "storagepoolID": pool_id, "masterSdUUID": engine.BLANK, "masterVersion": 0, "force": True}
        await self.client.call("StorageDomain.detach", params, timeout_s=60)

    async def end(self) -> None:
        await self.client.call("StorageDomain.format", {"storagedomainID": self.domain_id, "autoDetach": False})
        await self.disconnect()


async def domains_of(client: Client, pool: engine.Pool) -> set[str]:
    info = await client.call("StoragePool.getInfo", {"storagepoolID": pool.pool_id})
    return set(info["dominfo"])


async def test_files_that_people_put_into_an_iso_domain_are_listed(
    agent_host: PrivateHost, client: Client, old_pool: engine.Pool
) -> None:
    iso = Place(agent_host, client, old_pool)
    params: dict[str, Any] = {"domainClass": ISO_CLASS, "version": 0}
    await iso.make(**params)
    await iso.attach()
    await client.call("StorageDomain.activate", iso.ids)
    for name, mode, size in (("tools.iso", 0o644, 3), ("sub/Other.ISO", 0o600, 5), ("notes.txt", 0o644, 1)):
        file = iso.path / PEOPLES / name
        if not file.parent.exists():
            file.parent.mkdir()
            os.chown(file.parent, 36, 36)
        file.write_bytes(b"x" * size)  # by root, as people do
        file.chmod(mode)

    async def listed(pattern: str, *, sensitive: bool = False) -> dict[str, Any]:
        asked = {"storagedomainID": iso.domain_id, "pattern": pattern, "caseSensitive": sensitive}
        return dict(await client.call("StorageDomain.getFileStats", asked))

    found = await listed("*.iso")
    assert {name: (entry["size"], entry["status"]) for name, entry in found.items()} == {
        "tools.iso": ("3", 0),
        "sub/Other.ISO": ("5", 469),  # of root, and closed to everybody else
    }
    assert all(float(entry["ctime"]) > 1e9 for entry in found.values())
    assert set(await listed("*.iso", sensitive=True)) == {"tools.iso"}
    assert set(await listed("*")) == {"tools.iso", "sub/Other.ISO", "notes.txt"}
    await client.call("StorageDomain.deactivate", {**iso.ids, "masterSdUUID": engine.BLANK, "masterVersion": 0})
    await client.call("StorageDomain.detach", {**iso.ids, "force": False})
    await iso.end()


async def test_a_pool_of_an_old_version_is_brought_to_a_later_one(
    agent_host: PrivateHost, client: Client, old_pool: engine.Pool
) -> None:
    path = agent_host.path(f"{engine.LOCAL_FOLDER}/{old_pool.domain_id}")
    second = Place(agent_host, client, old_pool)
    await second.make()
    await second.attach()
    await client.call("StorageDomain.activate", second.ids)
    assert [decoder.decode(one).fields["VERSION"] for one in (path, second.path)] == ["3", "3"]
    params = {"storagepoolID": old_pool.pool_id, "targetDomVersion": "5"}
    assert await client.call("StoragePool.upgrade", params, timeout_s=60) == "started"
    assert decoder.decode(path).fields["VERSION"] == "5"
    info = await client.call("StoragePool.getInfo", {"storagepoolID": old_pool.pool_id})
    assert info["info"]["version"] == "5"

    async def followed() -> bool:
        return second.fields["VERSION"] == "5"

    await engine.until("the other domain of version 5", followed, timeout_s=30)
    await client.call("StorageDomain.deactivate", {**second.ids, "masterSdUUID": engine.BLANK, "masterVersion": 0})
    await client.call("StorageDomain.detach", {**second.ids, "force": False})
    await second.end()


async def test_a_domain_that_is_lost_leaves_the_pool_by_force(
    agent_host: PrivateHost, client: Client, old_pool: engine.Pool
) -> None:
    lost = Place(agent_host, client, old_pool)
    await lost.lose()
    before = (lost.path / "dom_md/metadata").read_bytes()
    assert lost.domain_id in await domains_of(client, old_pool)
    await lost.detach_by_force(old_pool.pool_id)
    assert lost.domain_id not in await domains_of(client, old_pool)
    assert (lost.path / "dom_md/metadata").read_bytes() == before


async def test_a_domain_that_is_found_is_freed_of_its_pool_by_force(
    agent_host: PrivateHost, client: Client, old_pool: engine.Pool
) -> None:
    found = Place(agent_host, client, old_pool)
    await found.find()
    await found.detach_by_force(engine.BLANK)
    assert found.fields["POOL_UUID"] == ""
    assert (await client.call("StorageDomain.getInfo", {"storagedomainID": found.domain_id}))["pool"] == []
    await found.end()


async def test_a_domain_that_names_a_pool_is_formatted_only_by_auto_detach(
    agent_host: PrivateHost, client: Client, old_pool: engine.Pool
) -> None:
    found = Place(agent_host, client, old_pool)
    await found.find()
    format_it = {"storagedomainID": found.domain_id}
    with pytest.raises(RpcError) as caught:
        await client.call("StorageDomain.format", {**format_it, "autoDetach": False})
    assert (caught.value.code, found.path.exists()) == (391, True)
    await client.call("StorageDomain.format", {**format_it, "autoDetach": True}, timeout_s=60)
    assert not found.path.exists()
    await found.disconnect()
