# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of StorageDomain."""

from __future__ import annotations

import contextlib

from msgspec import field

from storage.errors import DomainNotFound
from vdsm.api import storage_types as wire
from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, Params, Text, Uuid, WireBool, WireInt
from vdsm.common.ids import BLANK_UUID

MAX_HOSTS = 2000
UNREADABLE = 469
"""Of a file, in the field's numbers: no permission."""


class DomainId(Params):
    domain_id: Uuid = field(name="storagedomainID")


class DomainInPool(Params):
    domain_id: Uuid = field(name="storagedomainID")
    pool_id: Uuid = field(name="storagepoolID")


class DomainCreate(Params):
    domain_id: Uuid = field(name="storagedomainID")
    domain_type: WireInt = field(name="domainType")
    type_args: Text = field(name="typeArgs")
    name: Text
    domain_class: WireInt = field(name="domainClass")
    # the field's defaults: who names no version makes an ISO or export domain
    version: WireInt = 0
    block_size: WireInt = field(name="blockSize", default=512)
    max_hosts: WireInt = field(name="maxHosts", default=MAX_HOSTS)


@verb("StorageDomain.create", role=Role.ADMIN, lacks="block domains")
async def domain_create(call: Call, params: DomainCreate) -> None:
    """Make a domain on connected storage: ``typeArgs`` names the storage as its connection did.

    ``version`` is 3, 4 or 5 of data domains and 0 of ISO and export domains.
    """
    storage = call.agent.storage
    kind = wire.kind_of("domainType", params.domain_type)
    domain_class = wire.class_of(params.domain_class)
    wire.check_range("blockSize", params.block_size, 0, 4096)
    wire.check_range("maxHosts", params.max_hosts, 1, MAX_HOSTS)
    await storage.catalogue.create(
        params.domain_id,
        kind,
        params.type_args,
        params.name,
        domain_class=domain_class,
        version=params.version,
        block_size=params.block_size,
        max_hosts=params.max_hosts,
    )


@verb("StorageDomain.getInfo", role=Role.READER)
async def domain_get_info(call: Call, params: DomainId) -> JsonDict:
    """Identity of a domain, from its metadata."""
    report = await call.agent.storage.catalogue.report(params.domain_id)
    metadata = report.metadata
    return {
        "uuid": metadata.domain_id,
        "name": metadata.description,
        "type": metadata.kind.value,
        "class": metadata.domain_class.value,
        "version": str(int(metadata.version)),
        "role": metadata.role.value,
        "pool": metadata.pools,
        "remotePath": metadata.remote_path,
        "state": "OK",
        "block_size": metadata.block_size,
        "alignment": metadata.alignment,
    }


@verb("StorageDomain.getStats", role=Role.READER)
async def domain_get_stats(call: Call, params: DomainId) -> JsonDict:
    """Capacity of a domain."""
    space = await call.agent.storage.catalogue.space(params.domain_id)
    return {**wire.bytes_text(space), "mdasize": 0, "mdafree": 0, "mdavalid": True, "mdathreshold": True, "alerts": []}


@verb("StorageDomain.validate", role=Role.READER)
async def domain_validate(call: Call, params: DomainId) -> None:
    """Read the domain's metadata from its storage: an error says what is wrong with it."""
    await call.agent.storage.catalogue.validate(params.domain_id)


class DomainFormat(Params):
    domain_id: Uuid = field(name="storagedomainID")
    auto_detach: WireBool = field(name="autoDetach", default=False)


@verb("StorageDomain.format", role=Role.ADMIN)
async def domain_format(call: Call, params: DomainFormat) -> None:
    """Remove a domain that no pool has from its storage, with all it holds.

    By ``autoDetach`` whatever pools it names have it no more first, but for the pool that this host is connected to.
    """
    storage = call.agent.storage
    if params.auto_detach:
        with contextlib.suppress(DomainNotFound):  # what is left of one is removed below
            await storage.forced_detach.free(params.domain_id)
    await storage.catalogue.format(params.domain_id)


@verb("StorageDomain.attach", role=Role.ADMIN)
async def domain_attach(call: Call, params: DomainInPool) -> None:
    """Attach a domain to the pool. For the SPM."""
    await call.agent.storage.pool_domains.attach(params.pool_id, params.domain_id)


class DomainDetach(Params):
    domain_id: Uuid = field(name="storagedomainID")
    pool_id: Uuid = field(name="storagepoolID")
    master_id: Uuid | None = field(name="masterSdUUID", default=None)
    master_version: WireInt | None = field(name="masterVersion", default=None)
    force: WireBool = False


@verb("StorageDomain.detach", role=Role.ADMIN)
async def domain_detach(call: Call, params: DomainDetach) -> None:
    """Detach an inactive domain from the pool. For the SPM.

    By ``force`` a domain that is lost leaves the pool, and nothing is written on it. By force and without a pool (the
    blank id) a domain is freed of whatever pools it names; any host may that.
    """
    storage = call.agent.storage
    if not params.force:
        await storage.pool_domains.detach(params.pool_id, params.domain_id)
    elif params.pool_id == BLANK_UUID:
        await storage.forced_detach.free(params.domain_id)
    else:
        await storage.forced_detach.drop(params.pool_id, params.domain_id)


@verb("StorageDomain.activate", role=Role.ADMIN)
async def domain_activate(call: Call, params: DomainInPool) -> None:
    """Use an attached domain. For the SPM."""
    await call.agent.storage.pool_domains.activate(params.pool_id, params.domain_id)


class DomainDeactivate(Params):
    domain_id: Uuid = field(name="storagedomainID")
    pool_id: Uuid = field(name="storagepoolID")
    master_id: Uuid | None = field(name="masterSdUUID", default=None)
    master_version: WireInt | None = field(name="masterVersion", default=None)


@verb("StorageDomain.deactivate", role=Role.ADMIN)
async def domain_deactivate(call: Call, params: DomainDeactivate) -> None:
    """Stop using a domain; it stays attached. For the SPM. The master hands its role to the named domain first; where
    none is named it stays as it is.
    """
    named = params.master_id if params.master_id not in (None, BLANK_UUID) else ""
    await call.agent.storage.pool_domains.deactivate(
        params.pool_id, params.domain_id, named or "", params.master_version or 0
    )


@verb("StorageDomain.getImages", role=Role.READER)
async def domain_get_images(call: Call, params: DomainId) -> list[Uuid]:
    """Ids of the images on a domain."""
    return await call.agent.storage.volumes.images(params.domain_id)


class FilesOf(Params):
    domain_id: Uuid = field(name="storagedomainID")
    pattern: Text
    case_sensitive: WireBool = field(name="caseSensitive")


@verb("StorageDomain.getFileStats", role=Role.READER)
async def domain_get_file_stats(call: Call, params: FilesOf) -> JsonDict:
    """Files of an ISO domain whose names match a shell pattern; ``status``: 0 when QEMU may read it, else 469."""
    found = await call.agent.storage.iso_files.matching(
        params.domain_id, params.pattern, case_sensitive=params.case_sensitive
    )
    return {
        name: {"size": str(iso.file.size), "ctime": str(iso.file.changed), "status": 0 if iso.readable else UNREADABLE}
        for name, iso in found.items()
    }


class DomainVolumes(Params):
    domain_id: Uuid = field(name="storagedomainID")
    pool_id: Uuid = field(name="storagepoolID", default=BLANK_UUID)
    image_id: Uuid = field(name="imageID", default=BLANK_UUID)


@verb("StorageDomain.getVolumes", role=Role.READER)
async def domain_get_volumes(call: Call, params: DomainVolumes) -> list[Uuid]:
    """Ids of the volumes of a domain, or of one image."""
    volumes = call.agent.storage.volumes
    if params.image_id == BLANK_UUID:
        return await volumes.of_domain(params.domain_id)
    return await volumes.of_image(params.domain_id, params.image_id)


class DomainDescription(Params):
    domain_id: Uuid = field(name="storagedomainID")
    description: Text


@verb("StorageDomain.setDescription", role=Role.ADMIN)
async def domain_set_description(call: Call, params: DomainDescription) -> None:
    """Rename a domain of the connected pool. For the SPM."""
    await call.agent.storage.pool.call_spm(
        "domain.rename", {"domain_id": params.domain_id, "description": params.description}
    )
