# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage that a pool uses keeps its connection; a domain is made on storage that is named as its kind is."""

from __future__ import annotations

import os

import pytest

from storage.errors import NotConnected
from storage.ondisk.values import DomainClass, DomainKind, DomainStatus
from storage.servers.errors import ConnectionUsed, RemotePathInvalid
from storage.servers.kinds import LocalFolder
from tests.unit.storage.local_world import World
from vdsm.api.codes import code_for
from vdsm.common.ids import new_uuid


async def test_an_active_domain_keeps_its_connection_until_the_pool_is_left(world: World) -> None:
    connection = LocalFolder("c", str(world.folder))
    mount = world.storage.connections.mount_path(connection.spec)
    (used,) = await world.storage.connections.disconnect([connection])
    assert isinstance(used.error, ConnectionUsed)
    assert f"domain {world.domain_id} of the pool" in str(used.error)
    assert os.path.islink(mount)
    await world.storage.pool.disconnect(world.pool_id)
    (left,) = await world.storage.connections.disconnect([connection])
    assert left.error is None
    assert not os.path.lexists(mount)


async def test_a_domain_that_is_seen_on_two_ways_keeps_the_one_that_the_pool_goes(world: World) -> None:
    (world.top / "way").symlink_to(world.top)
    second = LocalFolder("2", str(world.top / "way" / world.folder.name))
    (made,) = await world.storage.connections.connect([second])
    assert made.error is None
    await world.storage.catalogue.reports()  # a look at all that is connected
    (used,) = await world.storage.connections.disconnect([LocalFolder("1", str(world.folder))])
    assert isinstance(used.error, ConnectionUsed)
    (left,) = await world.storage.connections.disconnect([second])
    assert left.error is None


async def test_a_domain_that_is_attached_only_keeps_none(spm: World) -> None:
    second, folder = new_uuid(), spm.top / "second"
    await spm.create_domain(second, folder)
    await spm.storage.pool_domains.attach(spm.pool_id, second)
    pool = spm.storage.pool.connected
    assert pool is not None and pool.domains[second] is DomainStatus.ATTACHED
    (left,) = await spm.storage.connections.disconnect([LocalFolder("c", str(folder))])
    assert left.error is None


@pytest.mark.parametrize(
    ("kind", "spec", "refusal", "code"),
    [
        (DomainKind.NFS, "/srv/x", RemotePathInvalid, 390),
        (DomainKind.NFS, "srv", RemotePathInvalid, 390),
        (DomainKind.NFS, "srv:x", RemotePathInvalid, 390),
        (DomainKind.NFS, "", RemotePathInvalid, 390),
        (DomainKind.NFS, "srv:/x", NotConnected, 360),
        (DomainKind.LOCALFS, "srv:/x", RemotePathInvalid, 390),
        (DomainKind.LOCALFS, "/srv/../x", RemotePathInvalid, 390),
        (DomainKind.POSIXFS, "", RemotePathInvalid, 390),
    ],
)
async def test_a_new_domain_names_connected_storage_of_its_kind(
    world: World, kind: DomainKind, spec: str, refusal: type[Exception], code: int
) -> None:
    with pytest.raises(refusal) as e:
        await world.storage.catalogue.create(
            new_uuid(), kind, spec, "n", domain_class=DomainClass.DATA, version=5, block_size=512, max_hosts=250
        )
    assert code_for(e.value, "StorageDomain.create") == code  # type: ignore[arg-type]
