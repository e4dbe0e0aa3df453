# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of StoragePool: storage servers, the pool, the SPM role."""

from __future__ import annotations

from msgspec import field

from storage.connections import ConnectionResult
from storage.ondisk import lease_parameters
from storage.pool_master import ConnectedPool
from vdsm.api import storage_types as wire
from vdsm.api.call import Call
from vdsm.api.codes import code_for
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.storage_connections import ConnectionPart, connections_of
from vdsm.api.types import JsonDict, JsonList, Params, TaskId, Text, Uuid, WireBool, WireInt, WireText
from vdsm.common import masking
from vdsm.common.errors import InvalidParameter

MIN_HOST_ID, MAX_HOST_ID = 1, 2000


class Servers(Params):
    pool_id: Uuid = field(name="storagepoolID")
    domain_type: WireInt = field(name="domainType")
    connections: list[ConnectionPart] = field(name="connectionParams")


@verb("StoragePool.connectStorageServer", role=Role.ADMIN, lacks="iSCSI, FC, GlusterFS")
async def connect_storage_server(call: Call, params: Servers) -> JsonList:
    """Connect storage: each connection has its own result, 0 or an error code; the call itself succeeds."""
    if not params.connections:
        raise InvalidParameter("connectionParams", "[]", "it names no storage")
    wanted = connections_of(wire.kind_of("domainType", params.domain_type), params.connections)
    results = call.agent.storage.connections.connect(wanted)
    call.in_order()
    return _results("StoragePool.connectStorageServer", await results)


@verb("StoragePool.disconnectStorageServer", role=Role.ADMIN, lacks="iSCSI, FC, GlusterFS")
async def disconnect_storage_server(call: Call, params: Servers) -> JsonList:
    """Disconnect storage: each connection has its own result, 0 or an error code."""
    known = connections_of(wire.kind_of("domainType", params.domain_type), params.connections)
    results = call.agent.storage.connections.disconnect(known)
    call.in_order()
    return _results("StoragePool.disconnectStorageServer", await results)


def _results(verb: str, results: list[ConnectionResult]) -> JsonList:
    """A failure without a code of its own has the verb's: engines show the user what 451 means, and nothing for 100.

    ``reason`` is an extra of ours, for a person: engines read the number.
    """
    return [
        {"id": result.connection_id, "status": 0}
        if result.error is None
        else {
            "id": result.connection_id,
            "status": code_for(result.error, verb),
            "reason": masking.hide(str(result.error)),
        }
        for result in results
    ]


class PoolCreate(Params):
    pool_id: Uuid = field(name="storagepoolID")
    name: Text
    master_id: Uuid = field(name="masterSdUUID")
    master_version: WireInt = field(name="masterVersion")
    domain_ids: list[Uuid] = field(name="domainList")
    lock_renewal_s: WireInt | None = field(name="lockRenewalIntervalSec", default=None)
    lease_time_s: WireInt | None = field(name="leaseTimeSec", default=None)
    io_op_timeout_s: WireInt | None = field(name="ioOpTimeoutSec", default=None)
    lease_retries: WireInt | None = field(name="leaseRetries", default=None)


@verb("StoragePool.create", role=Role.ADMIN)
async def pool_create(call: Call, params: PoolCreate) -> None:
    """Create a pool on existing domains."""
    await call.agent.storage.new_pools.create(
        params.pool_id, params.name, params.master_id, params.master_version, params.domain_ids, _lease_fields(params)
    )


class PoolReconstruct(Params):
    pool_id: Uuid = field(name="storagepoolID")
    host_id: WireInt = field(name="hostId")
    name: Text
    master_id: Uuid = field(name="masterSdUUID")
    master_version: WireInt = field(name="masterVersion")
    domains: dict[Uuid, Text] = field(name="domainDict")
    lock_renewal_s: WireInt = field(name="lockRenewalIntervalSec")
    lease_time_s: WireInt = field(name="leaseTimeSec")
    io_op_timeout_s: WireInt = field(name="ioOpTimeoutSec")
    lease_retries: WireInt = field(name="leaseRetries")


@verb("StoragePool.reconstructMaster", role=Role.ADMIN)
async def pool_reconstruct_master(call: Call, params: PoolReconstruct) -> None:
    """Make another domain the master of a pool that lost its own. For a host that is in no pool."""
    wire.check_range("hostId", params.host_id, MIN_HOST_ID, MAX_HOST_ID)
    domains = wire.domain_map("domainDict", params.domains)
    pool = ConnectedPool(params.pool_id, params.host_id, params.master_id, params.master_version, domains, True)
    await call.agent.storage.new_pools.reconstruct(pool, params.name, _lease_fields(params))


def _lease_fields(params: PoolCreate | PoolReconstruct) -> dict[str, str]:
    """The four parameters are those of an old lock: kept on the master, unused."""
    return lease_parameters.fields(
        params.lock_renewal_s, params.lease_time_s, params.io_op_timeout_s, params.lease_retries
    )


class MasterSwitch(Params):
    pool_id: Uuid = field(name="storagepoolID")
    old_id: Uuid = field(name="oldMasterUUID")
    new_id: Uuid = field(name="newMasterUUID")
    version: WireInt = field(name="masterVersion")


@verb("StoragePool.switchMaster", role=Role.ADMIN, kind="task")
async def pool_switch_master(call: Call, params: MasterSwitch) -> TaskId:
    """Move the master's role, with all that is stored there, to another active domain. For the SPM."""
    return await call.agent.storage.pool_domains.switch_master(
        params.pool_id, params.old_id, params.new_id, params.version
    )


class PoolConnect(Params):
    pool_id: Uuid = field(name="storagepoolID")
    host_id: WireInt = field(name="hostID")
    scsi_key: WireText = field(name="scsiKey")
    master_id: Uuid = field(name="masterSdUUID")
    master_version: WireInt = field(name="masterVersion")
    domains: dict[Uuid, Text] | None = field(name="domainDict", default=None)


@verb("StoragePool.connect", role=Role.ADMIN)
async def pool_connect(call: Call, params: PoolConnect) -> None:
    """Connect this host to a pool with its host id; the same call again refreshes the map of domains."""
    domains = None if params.domains is None else wire.domain_map("domainDict", params.domains)
    wire.check_range("hostID", params.host_id, MIN_HOST_ID, MAX_HOST_ID)
    await call.agent.storage.pool.connect(
        params.pool_id, params.host_id, params.master_id, params.master_version, domains
    )


class PoolDisconnect(Params):
    pool_id: Uuid = field(name="storagepoolID")
    host_id: WireInt = field(name="hostID")
    scsi_key: WireText = field(name="scsiKey")
    remove: WireBool = False


@verb("StoragePool.disconnect", role=Role.ADMIN)
async def pool_disconnect(call: Call, params: PoolDisconnect) -> None:
    """Leave the pool: stop watching its domains, give the host id back. Refused while this host is SPM."""
    await call.agent.storage.pool.disconnect(params.pool_id)


class PoolDestroy(Params):
    pool_id: Uuid = field(name="storagepoolID")
    host_id: WireInt = field(name="hostID")
    scsi_key: WireText = field(name="scsiKey")


@verb("StoragePool.destroy", role=Role.ADMIN)
async def pool_destroy(call: Call, params: PoolDestroy) -> None:
    """End the pool: free all its domains and leave it. For the SPM."""
    await call.agent.storage.pool.destroy(params.pool_id, params.host_id)


class PoolId(Params):
    pool_id: Uuid = field(name="storagepoolID")


@verb("StoragePool.getInfo", role=Role.READER)
async def pool_get_info(call: Call, params: PoolId) -> JsonDict:
    """The pool and the state of its domains, as this host's monitors know it."""
    storage = call.agent.storage
    pool = storage.pool.require(params.pool_id)
    report = await storage.catalogue.report(pool.master_id)
    spm = await storage.pool.spm_report(params.pool_id)
    health = storage.monitors.health()
    domains: JsonDict = {}
    for domain_id, status in pool.domains.items():
        known = health.get(domain_id)
        domains[domain_id] = {"status": status.value, "alerts": [], "isoprefix": ""}
        domains[domain_id]["version"] = known.version if known is not None else -1
        if known is not None and known.space is not None:
            domains[domain_id] |= wire.bytes_text(known.space)
        if known is not None and known.reason:
            domains[domain_id]["reason"] = known.reason
    info = {
        "name": report.metadata.pool_description,
        "type": report.domain.kind.value,
        "master_ver": pool.master_version,
        "master_uuid": pool.master_id,
        "lver": spm.lease_version,
        "spm_id": spm.host_id,
        "pool_status": "connected",
        "version": str(int(report.domain.version)),
        "domains": ",".join(f"{domain_id}:{status.value}" for domain_id, status in pool.domains.items()),
        "isoprefix": "",
    }
    return {"info": info, "dominfo": domains}


@verb("StoragePool.getSpmStatus", role=Role.READER)
async def pool_get_spm_status(call: Call, params: PoolId) -> JsonDict:
    """The SPM role of this host, and which host id holds the SPM lease (-1: nobody)."""
    report = await call.agent.storage.pool.spm_report(params.pool_id)
    return {"spmStatus": report.status.value, "spmLver": report.lease_version, "spmId": report.host_id}


class SpmStart(Params):
    pool_id: Uuid = field(name="storagepoolID")
    previous_id: WireInt = field(name="prevID")
    previous_version: WireText = field(name="prevLver")
    scsi_fencing: WireBool = field(name="enableScsiFencing")
    max_host_id: WireInt = field(name="maxHostID", default=250)
    domain_version: WireInt | None = field(name="domVersion", default=None)


@verb("StoragePool.spmStart", role=Role.ADMIN, kind="task")
async def pool_spm_start(call: Call, params: SpmStart) -> TaskId:
    """Take the SPM role: acquire the SPM lease, finish or undo the tasks of the last SPM."""
    return await call.agent.storage.tasks.start_spm(params.pool_id, params.domain_version)


class PoolUpgrade(Params):
    pool_id: Uuid = field(name="storagepoolID")
    version: WireInt = field(name="targetDomVersion")


@verb("StoragePool.upgrade", role=Role.ADMIN)
async def pool_upgrade(call: Call, params: PoolUpgrade) -> str:
    """Bring the pool's data domains to a later format: the master at once, the others after the answer. For the SPM."""
    await call.agent.storage.versions.upgrade(params.pool_id, params.version)
    return "started"


@verb("StoragePool.spmStop", role=Role.ADMIN)
async def pool_spm_stop(call: Call, params: PoolId) -> None:
    """Give the SPM role up. Running tasks are interrupted and undone by the next SPM."""
    await call.agent.storage.pool.stop_spm(params.pool_id)


class PoolImage(Params):
    pool_id: Uuid = field(name="storagepoolID")
    image_id: Uuid = field(name="imageID")


@verb("StoragePool.getDomainsContainingImage", role=Role.READER)
async def pool_get_domains_containing_image(call: Call, params: PoolImage) -> list[Uuid]:
    """Domains of the pool that hold the image."""
    pool = call.agent.storage.pool.require(params.pool_id)
    return await call.agent.storage.volumes.domains_with_image(params.image_id, list(pool.domains))


class PoolDescription(Params):
    pool_id: Uuid = field(name="storagepoolID")
    description: Text


@verb("StoragePool.setDescription", role=Role.ADMIN)
async def pool_set_description(call: Call, params: PoolDescription) -> None:
    """Accepted and without effect: engines keep the name of a pool themselves."""
