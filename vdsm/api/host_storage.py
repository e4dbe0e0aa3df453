# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of Host that are about storage: domains, their health, all tasks, all jobs."""

from __future__ import annotations

import os

from msgspec import field

from storage.ondisk.remote_path import mount_name
from vdsm.api import storage_types as wire
from vdsm.api.call import Call
from vdsm.api.codes import code_of
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, NoParams, Params, Text, Uuid, WireInt
from vdsm.common import jobs


class StatsOf(Params):
    domains: list[Uuid] = field(default_factory=list)


@verb("Host.getStorageRepoStats", role=Role.READER)
async def host_get_storage_repo_stats(call: Call, params: StatsOf) -> JsonDict:
    """Health of the pool's domains by the last check; storage is not asked."""
    return dict(call.agent.storage.repo_stats(params.domains))


class DomainsOf(Params):
    pool_id: Uuid | None = field(name="storagepoolID", default=None)
    domain_class: WireInt | None = field(name="domainClass", default=None)
    storage_type: WireInt | None = field(name="storageType", default=None)
    remote_path: Text | None = field(name="remotePath", default=None)


@verb("Host.getStorageDomains", role=Role.READER, lacks="block domains")
async def host_get_storage_domains(call: Call, params: DomainsOf) -> list[Uuid]:
    """Ids of the domains on connected storage; each given parameter narrows the list."""
    kind = None if params.storage_type is None else wire.kind_of("storageType", params.storage_type)
    wanted_class = None if params.domain_class is None else wire.class_of(params.domain_class)
    return [
        report.domain.domain_id
        for report in await call.agent.storage.catalogue.reports()
        if (params.pool_id is None or params.pool_id in report.metadata.pools)
        and (kind is None or report.metadata.kind is kind)
        and (wanted_class is None or report.metadata.domain_class is wanted_class)
        and (not params.remote_path or os.path.basename(report.domain.place) == mount_name(params.remote_path))
    ]


@verb("Host.getConnectedStoragePools", role=Role.READER)
async def host_get_connected_storage_pools(call: Call, params: NoParams) -> list[Uuid]:
    """Ids of the pools that this host is connected to: one or none."""
    pool = call.agent.storage.pool.connected
    return [] if pool is None else [pool.pool_id]


@verb("Host.getAllTasksStatuses", role=Role.READER)
async def host_get_all_tasks_statuses(call: Call, params: NoParams) -> JsonDict:
    """State of all tasks of the pool. For the SPM."""
    keys = ("taskID", "taskState", "taskResult", "code", "message")
    return {task["taskID"]: {key: task[key] for key in keys} for task in await call.agent.storage.tasks.of_spm()}


@verb("Host.getAllTasksInfo", role=Role.READER)
async def host_get_all_tasks_info(call: Call, params: NoParams) -> JsonDict:
    """Verb of all tasks of the pool. For the SPM."""
    tasks = await call.agent.storage.tasks.of_spm()
    return {task["taskID"]: {"id": task["taskID"], "verb": task["verb"]} for task in tasks}


@verb("Host.getAllTasks", role=Role.READER)
async def host_get_all_tasks(call: Call, params: NoParams) -> JsonDict:
    """All tasks of this host and, when it is SPM, of the pool."""
    return {
        task["taskID"]: {
            "id": task["taskID"],
            "verb": task["verb"],
            "state": task["state"],
            "code": task["code"],
            "message": task["message"],
            "result": task["result"],
            "tag": task["tag"],
        }
        for task in await call.agent.storage.tasks.all()
    }


class JobsOf(Params):
    job_type: Text | None = None
    job_ids: list[Uuid] = field(default_factory=list)


@verb("Host.getJobs", role=Role.READER)
async def host_get_jobs(call: Call, params: JobsOf) -> JsonDict:
    """Jobs of this host, finished ones for an hour; ``job_type`` and ``job_ids`` narrow the list."""
    shown: JsonDict = {}
    for job in call.agent.jobs.all(params.job_type):
        if params.job_ids and job.job_id not in params.job_ids:
            continue
        shown[job.job_id] = jobs.describe(job)
        if job.error is not None:
            shown[job.job_id]["error"] = {"code": code_of(type(job.error)), "message": str(job.error)}
    return shown
