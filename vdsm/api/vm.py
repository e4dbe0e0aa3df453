# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs of one VM."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from msgspec import Meta, field

from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import EncodedList, JsonDict, Params, Part, Secret, Text, Uuid, WireBool, WireInt, Xml
from vdsm.virt import report
from vdsm.virt.domain_xml import allowlist
from vdsm.virt.errors import UnsupportedParameter
from vdsm.virt.power import PowerdownRequest

_MAX_WAIT_S = 86_400
Seconds = Annotated[int, Meta(ge=0, le=_MAX_WAIT_S, description="seconds; may be text", extra={"wire": "int"})]


class VmParameters(Part):
    """What describes the VM: its domain XML. The other members belong to flows that are not supported yet."""

    xml: Xml
    vm_id: Uuid | None = field(name="vmId", default=None)
    memory_dump_volume: dict[str, Any] | None = field(name="memoryDumpVolume", default=None)
    memory_conf_volume: dict[str, Any] | None = field(name="memoryConfVolume", default=None)
    hibernation_handle: str | None = field(name="hiberVolHandle", default=None)
    tpm_data: Secret | None = field(name="_X_tpmdata", default=None)
    nvram_data: Secret | None = field(name="_X_nvramdata", default=None)


class VmCreate(Params):
    vm_id: Uuid = field(name="vmID")
    vm_params: VmParameters = field(name="vmParams")


@verb("VM.create", role=Role.OPERATOR, lacks="memory volumes, hibernation, TPM and NVRAM data")
async def vm_create(call: Call, params: VmCreate) -> JsonDict:
    """Start a VM from its domain XML.

    The answer is WaitForLaunch, before storage is prepared and hooks run. What fails later is told by the
    Down event and by ``exitMessage`` in the VM's statistics. An operator's XML may name images and nothing else of
    the host: docs/access.md has the list.
    """
    asked = params.vm_params
    for name, value in (
        ("vmParams.memoryDumpVolume", asked.memory_dump_volume),
        ("vmParams.memoryConfVolume", asked.memory_conf_volume),
        ("vmParams.hiberVolHandle", asked.hibernation_handle),
        ("vmParams._X_tpmdata", asked.tpm_data),
        ("vmParams._X_nvramdata", asked.nvram_data),
    ):
        if value:
            raise UnsupportedParameter(name)
    if call.identity.role is Role.OPERATOR:
        # a megabyte of XML takes it a while
        custom = call.agent.settings.operator_custom_properties
        await asyncio.to_thread(allowlist.check, asked.xml, params.vm_id, custom)
    vms = call.agent.vms
    vm = await vms.create(params.vm_id, asked.xml)
    return report.brief(vm) | {"xml": vm.xml}


class VmOnly(Params):
    vm_id: Uuid = field(name="vmID")


@verb("VM.getStats", role=Role.READER, lacks="what only a guest agent knows, jobs of disks")
async def vm_get_stats(call: Call, params: VmOnly) -> EncodedList:
    """State and statistics of one VM, in a list of one. Answered from caches: never waits for libvirt."""
    return call.agent.vms.encoded_stats(params.vm_id)


@verb("VM.getInfo", role=Role.READER)
async def vm_get_info(call: Call, params: VmOnly) -> JsonDict:
    """Id, status and status time of one VM."""
    return report.brief(call.agent.vms.get(params.vm_id))


@verb("VM.pause", role=Role.OPERATOR)
async def vm_pause(call: Call, params: VmOnly) -> JsonDict:
    """Stop the VM's CPUs, after its before_vm_pause hooks. A paused VM stays as it is.

    One that a failing disk has paused is no longer resumed by itself.
    """
    await call.agent.vms.get(params.vm_id).running.pause()
    return {"vmList": {}}


@verb("VM.cont", role=Role.OPERATOR)
async def vm_cont(call: Call, params: VmOnly) -> JsonDict:
    """Let a paused VM run on, after its before_vm_cont hooks.

    A running VM stays as it is. While an earlier call waits for its hooks, a second one is refused; a pause that comes
    meanwhile wins.
    """
    await call.agent.vms.get(params.vm_id).running.cont()
    return {"vmList": {}}


@verb("VM.reset", role=Role.OPERATOR)
async def vm_reset(call: Call, params: VmOnly) -> None:
    """Press the VM's reset button: the guest starts anew and hears nothing of it before."""
    await call.agent.vms.get(params.vm_id).running.reset()


@verb("VM.setDestroyOnReboot", role=Role.OPERATOR)
async def vm_set_destroy_on_reboot(call: Call, params: VmOnly) -> None:
    """End the VM at its next reboot (exit reason 13), so that it can be started with what was changed meanwhile."""
    await call.agent.vms.get(params.vm_id).power.destroy_on_reboot()


@verb("VM.freeze", role=Role.OPERATOR)
async def vm_freeze(call: Call, params: VmOnly) -> None:
    """Let the guest agent freeze the guest's file systems. It takes as long as the guest takes."""
    await call.agent.vms.get(params.vm_id).agent.freeze()


@verb("VM.thaw", role=Role.OPERATOR)
async def vm_thaw(call: Call, params: VmOnly) -> None:
    """Let the guest agent thaw the guest's file systems. Harmless where none is frozen."""
    await call.agent.vms.get(params.vm_id).agent.thaw()


class VmShutdown(VmOnly):
    delay: Seconds = 30
    message: Text = ""
    reboot: WireBool = False
    timeout: Seconds = 120
    force: WireBool = False


@verb("VM.shutdown", role=Role.OPERATOR, lacks="the message to the guest's users")
async def vm_shutdown(call: Call, params: VmShutdown) -> None:
    """Ask the guest to end (or to reboot): by its agent, by the power button, at last by force when asked to.

    ``delay`` and ``timeout`` are seconds: how long the guest's users are warned, and how long each way may
    take. The answer comes at once; a guest that ends is told as Down.
    """
    request = PowerdownRequest(params.delay, params.timeout, params.reboot, params.force)
    await call.agent.vms.get(params.vm_id).power.shut_down(request)


class VmDestroy(VmOnly):
    graceful_attempts: WireInt = field(name="gracefulAttempts", default=1)


@verb("VM.destroy", role=Role.OPERATOR)
async def vm_destroy(call: Call, params: VmDestroy) -> None:
    """End the VM, tear its images down and forget it. A VM that is Down is only forgotten.

    QEMU gets ``gracefulAttempts`` SIGTERMs before it is killed.
    """
    await call.agent.vms.destroy(params.vm_id, max(0, min(params.graceful_attempts, 10)))
