# SPDX-License-Identifier: GPL-2.0-or-later
"""The role of the master goes from one domain of the pool to another, while this host is SPM (storage.md 10.7).

Both domains are held alone: no task runs on either. The order, and who finds what when this process dies after it:

| step | a crash after it leaves |
|---|---|
| the new master's lease is taken, beside the old one's | both are free |
| its folders are emptied, all of the old one's are copied | the pool as it was; the next move empties them again |
| its metadata says Master: tasks are stored there from here on | two domains that say so: the engine decides |
| the agent is told, and points its link there | the same |
| the old one says Regular, what was copied is removed from it | the pool with its new master |
| the old lease is released | |

A domain that says Master and is not the pool's is put back by whoever is SPM (`Activations.prepare`).

Until the metadata says Master, a failure puts all back; from then on the move is done, and what can't be tidied up on
the old master is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from typing import Protocol

from storage.ondisk.domain_fields import DomainMetadata
from storage.ondisk.lease_parameters import COPIED
from storage.ondisk.values import DomainRole
from storage.spm.agent import Agent
from storage.spm.attachments import check_can_be_master
from storage.spm.errors import DomainNotInPool, MixedDomainVersions
from storage.spm.mastership import Mastership
from storage.tasks.files import MasterFolders, copy_all, remove_copied
from storage.tasks.runner import Tasks
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.storage.spm")

ON_MASTER = ("POOL_DESCRIPTION", "POOL_DOMAINS", "POOL_SPM_ID", "POOL_SPM_LVER")

LEASED = crash_point("master.move.leased", "the leases of both masters are ours, nothing is copied")
COPIED_ALL = crash_point("master.move.copied", "the new master's folders hold all, its metadata says Regular")
WRITTEN = crash_point("master.move.written", "both say Master, the agent was not told")
TOLD = crash_point("master.move.told", "the agent knows the new master, the old one says Master still")
FREED = crash_point("master.move.freed", "the old master is regular, its lease is ours still")


class Holder(Protocol):
    """Who has the mastership: the SPM's role."""

    @property
    def pool_id(self) -> str: ...
    @property
    def tasks(self) -> Tasks: ...
    def mastership(self) -> tuple[Mastership, MasterFolders]: ...
    async def take_mastership(self, domain_id: str) -> Mastership: ...
    def adopt(self, master: Mastership, folders: MasterFolders) -> None: ...


def _check(holder: Holder, metadata: DomainMetadata, version: int) -> None:
    if holder.pool_id not in metadata.pools:
        raise DomainNotInPool(metadata.domain_id, holder.pool_id)
    if metadata.version > version:
        raise MixedDomainVersions(metadata.domain_id, int(metadata.version), version)


async def move(holder: Holder, agent: Agent, target_id: str, version: int, *, map_on_master: bool) -> None:
    """``version``: the pool's, of its new master; stored only with ``map_on_master`` (storage.md 5.3).

    A domain of an older format is converted to the old master's first.

    Raises `SpmLeaseNotAcquired`, `DomainNotInPool`, `IsoMaster`, `BackupMaster`, `MixedDomainVersions`, and what the
    storage of either refuses.
    """
    old, from_old = holder.mastership()
    before = await old.domain.read_metadata()
    new = await holder.take_mastership(target_id)
    try:
        check_can_be_master(new.domain)
        _check(holder, await new.domain.read_metadata(), int(old.domain.version))
        LEASED.reach()
        await new.domain.convert(old.domain.version)
        to_new = await new.open()
        odd = await copy_all(from_old.ovfs, to_new.ovfs)

        async def commit() -> None:
            COPIED_ALL.reach()
            await new.domain.change_metadata(lambda _: _of_a_master(before, version, map_on_master=map_on_master))

        odd += await holder.tasks.move_store(to_new.tasks, commit)
    except BaseException:
        await asyncio.shield(_put_back(new))
        raise
    WRITTEN.reach()
    holder.adopt(new, to_new)
    # the role has moved: an agent that does not hear of it is told by its engine, which asks for the pool anew
    await _told(agent.master_moved(target_id, version), f"the agent does not know that {target_id} is the master")
    TOLD.reach()
    for sentence in odd:
        log.warning("%s: left there", sentence)
    await _tidy(old, from_old, to_new, map_on_master=map_on_master)


def _of_a_master(before: DomainMetadata, version: int, *, map_on_master: bool) -> Mapping[str, str]:
    kept = [key for key in (*COPIED, *(ON_MASTER if map_on_master else ())) if key in before.fields]
    written = {"MASTER_VERSION": str(version)} if map_on_master else {}
    return {"ROLE": DomainRole.MASTER.value, **written, **{key: before.fields[key] for key in kept}}


async def _put_back(new: Mastership) -> None:
    """A write whose end is not known may have made it a master."""

    def regular(metadata: DomainMetadata) -> Mapping[str, str | None]:
        return {"ROLE": DomainRole.REGULAR.value} if metadata.role is DomainRole.MASTER else {}

    await _told(new.domain.change_metadata(regular), f"domain {new.domain.domain_id} may say Master")
    await _told(new.leave(), f"lease {new.domain.sdm_lease} is not released")


async def _tidy(old: Mastership, from_old: MasterFolders, to_new: MasterFolders, *, map_on_master: bool) -> None:
    fields = {"ROLE": DomainRole.REGULAR.value, **({"MASTER_VERSION": "0"} if map_on_master else {})}
    domain = old.domain
    if await _told(
        domain.change_metadata(lambda _: fields), f"domain {domain.domain_id} says still that it is a master"
    ):
        for source, copy in ((from_old.ovfs, to_new.ovfs), (from_old.tasks, to_new.tasks)):
            await _told(remove_copied(source, copy), f"{source.folder} is not emptied")
    FREED.reach()
    await _told(old.leave(), f"lease {domain.sdm_lease} is not released")


async def _told(work: Awaitable[object], otherwise: str) -> bool:
    try:
        await work
    except AgentError as e:
        log.error("%s: %s", otherwise, e)
        return False
    return True
