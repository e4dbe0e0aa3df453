# SPDX-License-Identifier: GPL-2.0-or-later
"""How a VM ends, reboots and stops, on a real QEMU: what the engine hears, and what is left on the host."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import life_hosts
import pytest
import tiny_guest
from life_flows import (
    check_nothing_left,
    check_nothing_runs,
    code_of,
    destroy_told,
    listening,
    qemu_of,
    start,
    until_settled,
)
from tiny_guest import PANIC, press, until_says
from vm_flows import connect, destroy, domains, is_prepared, stats

from contrib.lab import engine
from contrib.lab.agent_life import AGENT_LOG
from contrib.lab.faults import killed
from contrib.lab.host import PrivateHost
from vdsm.client import Client

AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"


local_pool_host = life_hosts.host()
agent_host, client, volume = life_hosts.agent_host, life_hosts.client, life_hosts.volume


@pytest.mark.cost(2)
async def test_a_guest_that_panics_ends_with_an_error(
    agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = tiny_guest.describe(volume, devices=[PANIC])
    async with listening(client) as told:
        await start(client, vm)
        await until_says(agent_host, vm, "R")
        press(agent_host, vm, "p")
        await told.until(vm, "Down")
        check_nothing_runs(agent_host, vm, volume)
        await destroy_told(client, told, vm)
    assert told.ends(vm) == [(1, 2)]
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(2)
async def test_a_panicked_guest_that_is_kept_stands_and_can_be_destroyed(
    agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = tiny_guest.describe(volume, devices=[PANIC], on_crash="preserve")
    async with listening(client) as told:
        await start(client, vm)
        await until_says(agent_host, vm, "R")
        press(agent_host, vm, "p")
        assert (await told.until(vm, "Paused"))["pauseCode"] == "NOERR"
        assert domains(agent_host)[vm.vm_id] == "crashed"
        assert qemu_of(agent_host, vm)
        await destroy_told(client, told, vm)
    assert told.ends(vm) == [(0, 6)]
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(2)
async def test_a_guest_that_switches_itself_off_was_ended_by_its_user(
    agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = tiny_guest.describe(volume)
    async with listening(client) as told:
        await start(client, vm)
        await until_says(agent_host, vm, "R")
        press(agent_host, vm, "o")
        await told.until(vm, "Down")
        check_nothing_runs(agent_host, vm, volume)
        assert (await stats(client, vm.vm_id))["status"] == "Down"
        await destroy_told(client, told, vm)
    assert told.ends(vm) == [(0, 7)]
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(2)
async def test_a_reboot_is_told_and_qemu_stays(agent_host: PrivateHost, client: Client, volume: engine.Volume) -> None:
    vm = tiny_guest.describe(volume, devices=[AGENT], on_reboot="restart")
    async with listening(client) as told:
        await start(client, vm, "Powering up")
        await until_says(agent_host, vm, "R")
        qemu = qemu_of(agent_host, vm)
        press(agent_host, vm, "r")
        await told.until(vm, "RebootInProgress")
        await until_says(agent_host, vm, "RrR")
        assert qemu_of(agent_host, vm) == qemu
        await destroy_told(client, told, vm)
    assert told.ends(vm) == [(0, 6)]


@pytest.mark.cost(2)
async def test_a_reset_starts_the_guest_anew(agent_host: PrivateHost, client: Client, volume: engine.Volume) -> None:
    vm = tiny_guest.describe(volume, devices=[AGENT], on_reboot="restart")
    async with listening(client) as told:
        await start(client, vm, "Powering up")
        await until_says(agent_host, vm, "R")
        assert await code_of(client, "VM.reset", vm) == 0
        await told.until(vm, "RebootInProgress")
        await until_says(agent_host, vm, "RR")
        await destroy_told(client, told, vm)


@pytest.mark.cost(3)
async def test_what_must_not_reboot_ends_when_it_does_also_after_the_agents_death(
    agent_host: PrivateHost, client: Client, local_pool: engine.Pool, volume: engine.Volume
) -> None:
    vm = tiny_guest.describe(volume, on_reboot="restart")
    await start(client, vm)
    await until_says(agent_host, vm, "R")
    assert await code_of(client, "VM.setDestroyOnReboot", vm) == 0
    agent_host.restart_agent()
    async with agent_host.client() as client, listening(client) as told:
        await connect(client, local_pool)
        press(agent_host, vm, "r")
        await told.until(vm, "Down")
        check_nothing_runs(agent_host, vm, volume)
        await destroy_told(client, told, vm)
        assert told.ends(vm) == [(0, 13)]
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(2)
@pytest.mark.parametrize(("action", "status", "end"), [("reset", "Up", "RdR"), ("pause", "Paused", "Rd")])
async def test_what_the_watchdog_did_is_in_the_statistics(
    action: str, status: str, end: str, agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = tiny_guest.describe(volume, devices=[f"<watchdog model='ib700' action='{action}'/>"], on_reboot="restart")
    await start(client, vm)
    await until_says(agent_host, vm, "R")
    began = time.time()
    press(agent_host, vm, "d")

    async def barked() -> Any:
        return (await stats(client, vm.vm_id)).get("watchdogEvent")

    told = await engine.until("the watchdog is told", barked, timeout_s=10)
    assert told["action"] == action
    assert began - 1 < told["time"] < time.time() + 1
    await until_says(agent_host, vm, end)
    await until_settled(client, vm, status)
    await destroy(client, vm.vm_id)
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(3)
@pytest.mark.parametrize(("reboot", "end"), [(False, "R"), (True, "RR")])
async def test_a_guest_that_ignores_the_power_button_is_forced(
    reboot: bool, end: str, agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = tiny_guest.describe(volume, on_reboot="restart")
    async with listening(client) as told:
        await start(client, vm)
        await until_says(agent_host, vm, "R")
        began = time.monotonic()
        word = {"delay": "0", "timeout": "1", "force": True, "reboot": reboot}
        assert await code_of(client, "VM.shutdown", vm, **word) == 0
        assert time.monotonic() - began < 1
        await told.until(vm, "RebootInProgress" if reboot else "Powering down")
        if reboot:
            await until_says(agent_host, vm, end)
            await until_settled(client, vm, "Up", "RebootInProgress")
        else:
            await told.until(vm, "Down")
            check_nothing_runs(agent_host, vm, volume)
        assert 1 < time.monotonic() - began < 8
        await destroy_told(client, told, vm)
    assert told.ends(vm) == [(0, 6)]


@pytest.mark.cost(3)
async def test_a_guest_that_ignores_the_power_button_and_is_not_forced_runs_on(
    agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = tiny_guest.describe(volume)
    async with listening(client) as told:
        await start(client, vm)
        await until_says(agent_host, vm, "R")
        assert await code_of(client, "VM.shutdown", vm, delay=0, timeout=1) == 0
        assert await engine.vm_status(client, vm.vm_id) == "Powering down"
        await asyncio.sleep(1.5)
        assert domains(agent_host)[vm.vm_id] == "running"
        press(agent_host, vm, "o")  # later, as if it had obeyed
        await told.until(vm, "Down")
        await destroy_told(client, told, vm)
    assert told.ends(vm) == [(0, 6)]


@pytest.mark.cost(2)
async def test_a_killed_qemu_is_one_end_by_a_lost_qemu(
    agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = tiny_guest.describe(volume)
    async with listening(client) as told:
        await start(client, vm)
        agent_host.run(["kill", "-9", str(qemu_of(agent_host, vm))])
        await told.until(vm, "Down")
        check_nothing_runs(agent_host, vm, volume)
        await asyncio.sleep(1)  # a second one would come now
        await destroy_told(client, told, vm)
    assert told.ends(vm) == [(1, 2)]
    check_nothing_left(agent_host, vm, volume)


@pytest.mark.cost(25)
async def test_a_libvirt_without_its_state_ends_no_vm_that_runs(
    agent_host: PrivateHost, client: Client, volume: engine.Volume
) -> None:
    vm = tiny_guest.describe(volume)
    async with listening(client) as told:
        await start(client, vm)
        await until_says(agent_host, vm, "R")
        qemu = qemu_of(agent_host, vm)
        with killed(agent_host, "libvirtd"):
            agent_host.run(["sh", "-c", f"rm /run/libvirt/qemu/{vm.name}.*"])

        async def seen() -> bool:
            return "its QEMU runs" in agent_host.tail(AGENT_LOG)

        await engine.until("libvirt is looked at again", seen, timeout_s=10)
        assert domains(agent_host)[vm.vm_id] == "shut off"
        assert await engine.vm_status(client, vm.vm_id) == "Up"
        assert is_prepared(agent_host, volume)
        press(agent_host, vm, "w")
        await until_says(agent_host, vm, "W")
        agent_host.run(["kill", "-9", str(qemu)])
        await told.until(vm, "Down", timeout_s=30)
        check_nothing_runs(agent_host, vm, volume)
        await destroy(client, vm.vm_id)
    assert [code for code, _ in told.ends(vm)] == [1]
    check_nothing_left(agent_host, vm, volume)
