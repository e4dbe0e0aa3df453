# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirtd, or QEMUs, stop answering under many calls: 40 seconds here, two minutes in ``make soak``.

Whatever hung, once they answer every verb works at once and the states are libvirt's; and while QEMUs hang, other VMs
don't notice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from vm_flows import describe, destroy, domains, settled

from contrib.lab import engine
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost
from tests.soak import SOAK
from vdsm.client import Client
from vdsm.client.errors import ClientError, RpcError

# longer than deadlines of looks (20 s), and until libvirt's client gives up its connections (30 s)
OUTAGE_S = 120 if SOAK else 40
CALLS = 50
VMS = 7
AT_ONCE_S = 5.0
# of the agent: one of each thread of its pools, and the one for events
CONNECTIONS = 21
STATES = {"Up": "running", "Paused": "paused"}


@pytest.fixture
async def vm_ids(agent_host: PrivateHost, client: Client) -> AsyncIterator[list[str]]:
    vms = [describe() for _ in range(VMS)]
    for vm in vms:
        await engine.create_vm(client, vm)
    ids = [vm.vm_id for vm in vms]
    assert [await settled(client, vm_id) for vm_id in ids] == ["Up"] * VMS
    yield ids
    async with agent_host.client() as cleaner:
        for vm_id in ids:
            if await engine.vm_status(cleaner, vm_id) != "gone":
                await destroy(cleaner, vm_id)


async def begin_calls(client: Client, vm_ids: list[str]) -> list[asyncio.Task[object]]:
    """Many, among them a start and an end."""
    new = describe()

    async def call(verb: str, **parameters: object) -> object:
        return await client.call(verb, parameters, timeout_s=OUTAGE_S + 120)

    verbs = [engine.create_vm(client, new), call("VM.destroy", vmID=vm_ids[-1]), call("Host.getCapabilities")]
    for number in range(CALLS - len(verbs)):
        verbs.append(call(("VM.pause", "VM.cont")[number // VMS % 2], vmID=vm_ids[number % VMS]))
    vm_ids.append(new.vm_id)
    calls = [asyncio.create_task(verb) for verb in verbs]
    await asyncio.sleep(1)
    assert sum(not call.done() for call in calls) > VMS
    return calls


async def all_are_answered(calls: list[asyncio.Task[object]]) -> None:
    """Whatever it is that each of them hears."""
    async with asyncio.timeout(4 * AT_ONCE_S):
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                assert isinstance(result, (RpcError, ClientError)), result


async def all_verbs_work_at_once(host: PrivateHost, vm_ids: list[str]) -> None:
    async with host.client() as client:

        async def agree() -> bool:
            told = {vm_id: STATES.get(await engine.vm_status(client, vm_id)) for vm_id in vm_ids}
            try:
                found = domains(host)
            except HostFailed:  # one ended between two questions
                return False
            return told == {vm_id: found.get(vm_id) for vm_id in vm_ids}

        await engine.until("the agent says what libvirt says", agree, timeout_s=AT_ONCE_S)
        vm_id = vm_ids[0]
        for verb, state in (("VM.cont", "running"), ("VM.pause", "paused"), ("VM.cont", "running")):
            await client.call(verb, {"vmID": vm_id}, timeout_s=AT_ONCE_S)
            assert domains(host)[vm_id] == state
        await client.call("Host.getCapabilities", timeout_s=AT_ONCE_S)
        vm = describe()
        await engine.create_vm(client, vm)
        assert await settled(client, vm.vm_id, timeout_s=2 * AT_ONCE_S) == "Up"
        await client.call("VM.destroy", {"vmID": vm.vm_id}, timeout_s=AT_ONCE_S)
        assert vm.vm_id not in domains(host)
    assert connections(host) <= CONNECTIONS


def connections(host: PrivateHost) -> int:
    """To libvirtd, all of them the agent's."""
    # of these it listens on one
    return host.run(["cat", "/proc/net/unix"]).stdout.count(b"/run/libvirt/libvirt-sock\n") - 1


@contextlib.contextmanager
def stopped(host: PrivateHost, pids: list[str]) -> Iterator[None]:
    host.run(["kill", "-STOP", *pids])
    try:
        yield
    finally:
        host.run(["kill", "-CONT", *pids], check=False)


def libvirtd(host: PrivateHost) -> str:
    return host.run(["pgrep", "-x", "libvirtd"]).stdout.decode().strip()


@pytest.mark.cost(OUTAGE_S + 20)
@pytest.mark.timeout(OUTAGE_S + 300)
async def test_after_libvirtd_hung_under_many_calls_every_verb_works(
    agent_host: PrivateHost, client: Client, vm_ids: list[str]
) -> None:
    with stopped(agent_host, [libvirtd(agent_host)]):
        calls = await begin_calls(client, vm_ids)
        await asyncio.sleep(OUTAGE_S)
    await all_are_answered(calls)
    await all_verbs_work_at_once(agent_host, vm_ids)


@pytest.mark.cost(15)
async def test_after_libvirtd_was_killed_under_many_calls_every_verb_works(
    agent_host: PrivateHost, client: Client, vm_ids: list[str]
) -> None:
    pid = libvirtd(agent_host)
    with stopped(agent_host, [pid]):
        calls = await begin_calls(client, vm_ids)
        agent_host.run(["kill", "-9", pid])
    agent_host.start_process(["libvirtd", "--listen"], log="/var/log/libvirtd-again.log")
    await all_are_answered(calls)
    await all_verbs_work_at_once(agent_host, vm_ids)


@pytest.mark.cost(10)
async def test_while_qemus_hang_other_vms_do_not_notice(agent_host: PrivateHost, vm_ids: list[str]) -> None:
    """As many as libvirtd serves calls of one connection, and one more."""
    well, *sick = vm_ids
    pids = [agent_host.path(f"/run/libvirt/qemu/vm-{vm_id[:8]}.pid").read_text() for vm_id in sick]
    with stopped(agent_host, pids):
        async with agent_host.client() as client:
            hanging = [asyncio.create_task(client.call("VM.pause", {"vmID": vm_id})) for vm_id in sick]
            await asyncio.sleep(3)
            assert not any(call.done() for call in hanging)
            async with agent_host.client() as other:
                for verb, state in (("VM.pause", "paused"), ("VM.cont", "running")):
                    await other.call(verb, {"vmID": well}, timeout_s=AT_ONCE_S)
                    assert domains(agent_host)[well] == state
                await other.call("VM.destroy", {"vmID": well}, timeout_s=AT_ONCE_S)
            assert not any(call.done() for call in hanging)
            agent_host.run(["kill", "-CONT", *pids])
            await asyncio.gather(*hanging)
            assert {domains(agent_host)[vm_id] for vm_id in sick} == {"paused"}
