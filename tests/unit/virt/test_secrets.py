# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets of a VM reach hooks and libvirt at its start, and nobody else: answers, files, messages and traces."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vdsm.api.call import Agent, Call
from vdsm.api.host_vms import DumpXmls, host_dumpxmls
from vdsm.api.roles import Identity, Role
from vdsm.api.vm import VmCreate, VmParameters, vm_create
from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.xml import parse, without_secrets
from vdsm.hooking.contents import difference
from vdsm.hooking.points import Data

from .fakes import VM, World, disk, until, xml_of

MARK = "s3cret-mark"
SECRETS = [
    f"<graphics type='vnc' passwd='{MARK}' passwdValidTo='2030-01-01T00:00:00'/>",
    f"<graphics type='spice'><listen passwd='{MARK}'/></graphics>",
]
PAYLOAD = (
    f"<ovirt-vm:device devtype='disk' name='sdc'><ovirt-vm:payload><ovirt-vm:volId>x</ovirt-vm:volId>"
    f"<ovirt-vm:file path='user-data'>{MARK}</ovirt-vm:file></ovirt-vm:payload></ovirt-vm:device>"
)
CUSTOM = f"<ovirt-vm:custom><ovirt-vm:root_password>{MARK}</ovirt-vm:root_password></ovirt-vm:custom>"
CD = ("<disk type='file' device='cdrom'><target dev='sdc'/></disk>", "")


def secret_xml() -> str:
    return xml_of(disks=[disk(), CD], devices="".join(SECRETS), metadata=PAYLOAD + CUSTOM)


def call(world: World, role: Role) -> Call:
    agent = SimpleNamespace(vms=world.vms)
    return Call(cast(Agent, agent), Identity("someone", role), "flow", "test")


async def dumped(world: World, role: Role) -> str:
    return str((await host_dumpxmls(call(world, role), DumpXmls(vm_ids=[VM])))[VM])


def files(world: World) -> str:
    return "".join(path.read_text() for path in Path(world.paths.state).rglob("*") if path.is_file())


class Broken(AgentError):
    msg = "broken on purpose"


@pytest.mark.parametrize("role", [Role.READER, Role.OPERATOR, Role.PEER, Role.ADMIN])
async def test_a_vm_that_starts_shows_no_secret(world: World, role: Role) -> None:
    running, go = asyncio.Event(), asyncio.Event()
    seen = []

    async def script(xml: str) -> str:
        seen.append(xml)
        running.set()
        await go.wait()
        return xml

    world.hooks.scripts["before_vm_start"] = script
    answer = await vm_create(call(world, Role.ADMIN), VmCreate(vm_id=VM, vm_params=VmParameters(xml=secret_xml())))
    await running.wait()
    assert MARK not in str(answer)
    assert MARK not in await dumped(world, role)
    assert MARK not in str(world.vms.all_stats())
    assert MARK not in files(world)
    go.set()
    await until(lambda: world.vms.stats(VM)["status"] == "Up")
    # libvirt and the scripts before it are who needs them
    assert seen[0].count(MARK) == world.hypervisor.found[VM].xml.count(MARK) == 4


async def test_a_vm_that_failed_to_start_shows_no_secret_also_after_a_restart(world: World) -> None:
    async def script(xml: str) -> str:
        raise Broken()

    world.hooks.scripts["before_vm_start"] = script
    vm = await world.vms.create(VM, secret_xml())
    await until(lambda: vm.status.down)
    for _ in range(2):
        assert MARK not in await dumped(world, Role.ADMIN)
        assert MARK not in str(world.vms.all_stats()) + str(world.events.told) + files(world)
        await world.restart()


async def test_payloads_of_a_running_vm_are_for_administrators(world: World) -> None:
    await world.vms.create(VM, secret_xml())
    await until(lambda: world.vms.stats(VM)["status"] == "Up")
    for role in (Role.READER, Role.OPERATOR, Role.PEER):
        shown = await dumped(world, role)
        assert MARK not in shown
        assert "user-data" in shown and "passwdValidTo" in shown
    assert MARK in await dumped(world, Role.ADMIN)


async def test_what_is_wrong_with_an_xml_is_told_without_the_xml(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for xml in (f"<a passwd='{MARK}'", f"<domain passwd='{MARK}'/>", f"<a passwd='{MARK}'>&x;</a>"):
        with pytest.raises(InvalidParameter) as refused:
            await world.vms.create(VM, xml)
        assert MARK not in str(refused.value)
    assert MARK not in caplog.text


@pytest.mark.parametrize(
    "secret", [*SECRETS, PAYLOAD, CUSTOM, f"<x token='{MARK}'/>", f"<arg value='p,password={MARK}'/>"]
)
def test_every_place_of_a_secret_is_known(secret: str) -> None:
    text = f"<domain xmlns:ovirt-vm='http://ovirt.org/vm/1.0'><devices>{secret}</devices></domain>"
    hidden = without_secrets(text)
    assert MARK not in hidden
    assert "*****" in hidden


def test_an_xml_that_cannot_be_read_is_not_shown() -> None:
    assert without_secrets(f"<domain passwd='{MARK}'") == ""


def test_what_is_no_secret_stays() -> None:
    text = xml_of(disks=[disk()], metadata="<ovirt-vm:file>x</ovirt-vm:file>")
    assert without_secrets(text) == without_secrets(without_secrets(text))
    assert parse(without_secrets(text), what="it").findtext("uuid") == VM
    assert "*****" not in without_secrets(text)


def test_the_trace_of_hooks_shows_no_payload() -> None:
    before: Any = secret_xml()
    after = before.replace(MARK, f"other-{MARK}").replace("65536", "1")
    shown = difference(Data.DOMAIN, before, after)
    assert MARK not in shown
    assert "65536" in shown
