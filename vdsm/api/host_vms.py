# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs about all VMs of the host."""

from __future__ import annotations

import asyncio

from msgspec import field

from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import EncodedList, JsonDict, JsonList, NoParams, Params, Uuid, WireBool
from vdsm.common.xml import without_secrets


class VmList(Params):
    full_status: WireBool = field(name="fullStatus", default=False)
    vm_ids: list[Uuid] | None = field(name="vmList", default=None)
    only_uuid: WireBool = field(name="onlyUUID", default=True)


@verb("Host.getVMList", role=Role.READER)
async def host_get_vm_list(call: Call, params: VmList) -> JsonList:
    """Id, status and status time of the VMs in ``vmList``, or of all. Unknown ids are left out.

    ``fullStatus`` and ``onlyUUID`` change nothing; old clients send them.
    """
    wanted = None if not params.vm_ids else frozenset(params.vm_ids)
    return [vm for vm in call.agent.vms.brief() if wanted is None or vm["vmId"] in wanted]


class VmFullList(Params):
    vm_ids: list[Uuid] | None = field(name="vmList", default=None)


@verb("Host.getVMFullList", role=Role.READER)
async def host_get_vm_full_list(call: Call, params: VmFullList) -> JsonList:
    """As Host.getVMList: no server tells devices here any more. For old clients."""
    return await host_get_vm_list(call, VmList(vm_ids=params.vm_ids))


@verb("Host.getAllVmStats", role=Role.READER, lacks="what only a guest agent knows, jobs of disks")
async def host_get_all_vm_stats(call: Call, params: NoParams) -> EncodedList:
    """State and statistics of every VM. Answered from caches: never waits for libvirt."""
    return await call.agent.vms.all_encoded_stats()


class DumpXmls(Params):
    vm_ids: list[Uuid] = field(name="vmList", default_factory=list)


@verb("Host.dumpxmls", role=Role.READER)
async def host_dumpxmls(call: Call, params: DumpXmls) -> JsonDict:
    """The domain XML of each VM in ``vmList`` by its id. An unknown id is an error.

    Passwords of graphics are never in it. Who is not an administrator sees payloads and passwords of other kinds as
    ``*****``, too.
    """
    vms = call.agent.vms
    found = {vm_id: vms.get(vm_id).xml for vm_id in params.vm_ids}
    if call.identity.role is Role.ADMIN:
        return found
    return {vm_id: await asyncio.to_thread(without_secrets, xml) for vm_id, xml in found.items()}
