# SPDX-License-Identifier: GPL-2.0-or-later
"""What can't be waited for: a QEMU that hangs in the kernel, a guest agent that never answers. Others don't notice."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import life_hosts
import pytest
import tiny_guest
from life_flows import (
    check_nothing_left,
    check_nothing_runs,
    code_of,
    destroy_told,
    listening,
    lives,
    qemu_of,
    seconds,
    start,
)
from life_hosts import Behave
from tiny_guest import press, until_says
from vm_flows import describe, destroy, domains, is_prepared

from contrib.lab import engine
from contrib.lab.agent_life import AGENT_SOCKET
from contrib.lab.guest import Guest
from contrib.lab.host import PrivateHost
from vdsm.client import Client

AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


local_pool_host = life_hosts.host()
agent_host, client = life_hosts.agent_host, life_hosts.client
volume, disk = life_hosts.volume, life_hosts.disk


@pytest.mark.cost(90)
async def test_a_qemu_that_cannot_be_killed_keeps_its_disks_and_delays_nobody(
    agent_host: PrivateHost, client: Client, local_pool: engine.Pool, volume: engine.Volume, disk: Behave
) -> None:
    vm = tiny_guest.describe(volume)
    other = tiny_guest.describe(await tiny_guest.new_volume(agent_host, client, local_pool))
    async with listening(client) as told:
        await asyncio.gather(start(client, vm), start(client, other))
        await until_says(agent_host, vm, "R")
        qemu = qemu_of(agent_host, vm)
        disk("hang")
        press(agent_host, vm, "w")
        await until_says(agent_host, vm, "w")
        began = time.monotonic()
        destroying = asyncio.create_task(code_of(client, "VM.destroy", vm, gracefulAttempts=0))
        slowest = 0.0
        while not destroying.done():
            for verb in ("VM.pause", "VM.getStats", "VM.cont", "VM.getInfo"):
                slowest = max(slowest, await seconds(client, verb, other))
            await asyncio.sleep(0.2)
        assert await destroying == 42
        assert time.monotonic() - began < 65
        assert slowest < 1
        assert await engine.vm_status(client, vm.vm_id) == "Powering down"
        assert lives(agent_host, qemu)
        assert is_prepared(agent_host, volume)
        assert told.ends(vm) == []
        assert told.ends(other) == []
        disk("well")
        await told.until(vm, "Down", timeout_s=40)
        assert not lives(agent_host, qemu)
        check_nothing_runs(agent_host, vm, volume)
        assert await engine.vm_status(client, vm.vm_id) == "Down", "who destroyed it heard that it failed"
        assert domains(agent_host)[other.vm_id] == "running"
        await destroy(client, vm.vm_id)
        await destroy_told(client, told, other)
    assert told.ends(vm) == [(0, 6)]
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(8)
async def test_a_guest_agent_that_never_answers_delays_no_other_verb(agent_host: PrivateHost, guest: Guest) -> None:
    vm = describe(guest=guest, devices=[AGENT])
    vm = replace(vm, cmdline=f"{vm.cmdline} lab.agent=mute")
    async with Client.unix_ws(agent_host.outer_socket(AGENT_SOCKET)) as client, listening(client) as told:
        await start(client, vm, "Powering up")
        await told.until(vm, "Up", timeout_s=60)  # its agent is there
        freezing = asyncio.create_task(code_of(client, "VM.freeze", vm))

        async def asked() -> bool:
            return "guest-fsfreeze-freeze" in agent_host.path(vm.serial_log).read_text(errors="replace")

        await engine.until("the guest is asked", asked, timeout_s=20)
        for verb in ("VM.getStats", "VM.pause", "VM.cont", "VM.setDestroyOnReboot", "VM.destroy"):
            assert not freezing.done()
            assert await seconds(client, verb, vm) < 1, verb
        assert await freezing == 6
        await told.until(vm, "Down")
    assert told.ends(vm) == [(0, 6)]
    assert vm.vm_id not in domains(agent_host)
