# SPDX-License-Identifier: GPL-2.0-or-later
"""The storage of this host for people: our own verbs. Each answers within seconds, whatever hangs.

What is not known is null. ``trouble`` says what did not answer; the rest of its row was known before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from msgspec import field

from storage.reports.asking import PATIENCE_S
from storage.reports.domains import DomainSeen
from storage.reports.hosts import DomainHosts
from storage.reports.leases import DomainLeases, LeaseSeen
from storage.reports.pools import PoolSeen
from storage.under_way import Change
from vdsm.api.call import Call
from vdsm.api.codes import code_of
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, NoParams, Params, Uuid
from vdsm.common import jobs, masking
from vdsm.common.errors import AgentError, DeadlineExceeded


class OfDomain(Params):
    # no name of `lines.SUBJECTS`: what hangs on a domain must not keep anybody from asking how the domain is
    domain_id: Uuid | None = field(name="domain", default=None)


@verb("storage.getPools", role=Role.READER)
async def storage_get_pools(call: Call, params: NoParams) -> list[JsonDict]:
    """The pool that this host is connected to, one or none: its master, its domains, who is SPM."""
    return [_pool(pool) for pool in await call.agent.storage.reports.pools.all()]


@verb("storage.getDomains", role=Role.READER)
async def storage_get_domains(call: Call, params: OfDomain) -> list[JsonDict]:
    """Domains of the pool and what else lies on connected storage: who they are, how they are, since when."""
    reports = call.agent.storage.reports.domains
    seen = await reports.all() if params.domain_id is None else [await reports.one(params.domain_id)]
    return [_domain(domain) for domain in seen]


@verb("storage.getHosts", role=Role.READER)
async def storage_get_hosts(call: Call, params: OfDomain) -> list[JsonDict]:
    """Hosts in the lockspace of each active domain, or of one: alive or dead, and which one this host is."""
    reports = call.agent.storage.reports
    if params.domain_id is None:
        return [_hosts(found) for found in await reports.hosts.all()]
    await reports.domains.one(params.domain_id)
    return [_hosts(await reports.hosts.of(params.domain_id))]


@verb("storage.getLeases", role=Role.READER)
async def storage_get_leases(call: Call, params: OfDomain) -> list[JsonDict]:
    """Who holds the lease of each active domain; of one domain also the leases of its volumes that are held."""
    reports = call.agent.storage.reports
    if params.domain_id is None:
        return [_leases(found) for found in await reports.leases.all()]
    await reports.domains.one(params.domain_id)
    return [_leases(await reports.leases.of(params.domain_id, volumes=True))]


@verb("storage.getTasks", role=Role.READER)
async def storage_get_tasks(call: Call, params: NoParams) -> list[JsonDict]:
    """Tasks of this host and, when it is SPM, of the pool; jobs of this host; changes that outlast their callers."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            tasks = await call.agent.storage.tasks.all()
    except TimeoutError:
        raise DeadlineExceeded("asking the SPM process for its tasks", PATIENCE_S) from None
    changes = call.agent.storage.under_way.changes()
    return [*map(_task, tasks), *map(_job, call.agent.jobs.all()), *map(_change, changes)]


def _pool(pool: PoolSeen) -> JsonDict:
    return {
        "id": pool.pool_id,
        "name": pool.name,
        "version": pool.version if pool.version >= 0 else None,
        "master": pool.master_id,
        "masterVersion": pool.master_version,
        "hostId": pool.host_id,
        "spmStatus": pool.role.value,
        "spmLease": None if pool.lease is None else _lease(pool.lease),
        "spmEnded": masking.hide(pool.ended_because),
        "trouble": masking.hide(pool.trouble),
        "domains": {domain_id: status.value for domain_id, status in pool.domains.items()},
    }


def _domain(seen: DomainSeen) -> JsonDict:
    metadata, health = seen.metadata, seen.health
    shown: JsonDict = {
        "id": seen.domain_id,
        "status": None if seen.status is None else seen.status.value,
        "mount": seen.mount,
        "hostId": seen.host_id,
        "trouble": masking.hide(seen.trouble),
        "name": None,
        "health": None,
    }
    if metadata is not None:
        shown |= {
            "name": metadata.description,
            "kind": metadata.kind.value,
            "class": metadata.domain_class.value,
            "role": metadata.role.value,
            "version": int(metadata.version),
            "pools": metadata.pools,
            "server": masking.hide(metadata.remote_path),
        }
    if health is not None:
        error = health.error if isinstance(health.error, AgentError) else None
        shown["health"] = {
            "checked": health.checked,
            "valid": health.valid,
            "code": code_of(type(error)) if error is not None else 0,
            "reason": masking.hide(health.reason),
            "sinceSeconds": round(health.since_s, 1),
            "hostIdHeld": health.acquired,
            "lastCheckSeconds": round(health.age_s, 1),
            "delaySeconds": health.delay_s,
            "total": None if health.space is None else health.space.total,
            "free": None if health.space is None else health.space.free,
        }
    return shown


def _hosts(found: DomainHosts) -> JsonDict:
    return {
        "domain": found.domain_id,
        "shared": found.shared,
        "limitSeconds": found.limit_s,
        "trouble": masking.hide(found.trouble),
        "hosts": [
            {
                "hostId": host.host_id,
                "name": host.name,
                "status": host.status.value,
                "generation": host.generation,
                "here": host.here,
                "renewedSeconds": None if host.renewed_s is None else round(host.renewed_s, 1),
            }
            for host in found.hosts
        ],
    }


def _leases(found: DomainLeases) -> JsonDict:
    return {
        "domain": found.domain_id,
        "trouble": masking.hide(found.trouble),
        "unread": found.unread,
        "leases": [_lease(lease) for lease in found.leases],
    }


def _lease(lease: LeaseSeen) -> JsonDict:
    return {
        "resource": lease.resource,
        "image": lease.image_id,
        "version": lease.version,
        "hostId": lease.host_id,
        "generation": lease.generation,
        "name": lease.name,
        "status": lease.status.value,
        "here": lease.here,
        "pid": lease.pid,
        "writers": list(lease.writers),
        "ended": lease.ended,
    }


def _task(task: Mapping[str, Any]) -> JsonDict:
    return {
        "id": task["taskID"],
        "kind": "task",
        "verb": task["verb"],
        "state": task["state"],
        "isDone": task["taskState"] in ("finished", "aborted", "failed"),
        "failed": bool(task["code"]),
        "progress": task["progress"],
        "code": task["code"],
        "message": masking.hide(str(task["message"])),
        "result": task["result"],
    }


def _change(change: Change) -> JsonDict:
    """It has no id of its own: that of the domain or pool that it changes."""
    return {
        "id": change.about,
        "kind": "change",
        "verb": change.what,
        "state": change.at,
        "isDone": False,
        "failed": False,
        "progress": None,
        "code": 0,
        "message": f"It is under way for {change.seconds:.0f} s",
        "result": "",
    }


def _job(job: jobs.Job) -> JsonDict:
    return {
        "id": job.job_id,
        "kind": "job",
        "verb": job.verb,
        "state": job.status.value,
        "isDone": job.finished,
        "failed": job.status is jobs.JobStatus.FAILED,
        "progress": job.progress,
        "code": 0 if job.error is None else code_of(type(job.error)),
        "message": masking.hide(job.description if job.error is None else str(job.error)),
        "result": "",
    }
