# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold of a pool's master before this host connects to the pool (storage.md 10.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.domains import Domains
from storage.errors import StorageError
from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.values import DomainRole, DomainStatus
from storage.spm.errors import AnotherPoolConnected, MasterNotFound, PoolHostIdDiffers, WrongMaster


@dataclass(frozen=True)
class ConnectedPool:
    pool_id: str
    host_id: int
    master_id: str
    master_version: int
    domains: Mapping[str, DomainStatus]
    map_on_master: bool
    """No engine gives the map: the one on the master domain counts."""


def check_connectable(connected: ConnectedPool | None, pool_id: str, host_id: int) -> None:
    """Raises `AnotherPoolConnected`, `PoolHostIdDiffers`."""
    if connected is None:
        return
    if connected.pool_id != pool_id:
        raise AnotherPoolConnected(pool_id, connected.pool_id)
    if connected.host_id != host_id:
        raise PoolHostIdDiffers(pool_id, host_id, connected.host_id)


async def read_master(domains: Domains, pool_id: str, master_id: str) -> DomainMetadata:
    """Its metadata. Raises `MasterNotFound`, `WrongMaster`."""
    try:
        metadata = await (await domains.get(master_id)).read_metadata()
    except StorageError as e:
        raise MasterNotFound(pool_id, master_id, str(e)) from e
    if metadata.role is not DomainRole.MASTER:
        raise WrongMaster(pool_id, master_id, f"its role is {metadata.role}")
    if pool_id not in metadata.pools:
        raise WrongMaster(pool_id, master_id, f"it belongs to {', '.join(metadata.pools) or 'no pool'}")
    return metadata
