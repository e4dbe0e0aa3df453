# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of a VM's life do and see again and again: events, what is left of a VM, how quick others are served."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from vm_flows import domains, is_prepared, records

from contrib.lab import engine, vm_xml
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PREFIX, PYTHON
from vdsm.client import Client, RpcError


class Told:
    """VM_status events, in their order."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def of(self, vm: vm_xml.Vm) -> list[dict[str, Any]]:
        return [told for told in self.all if told["vmId"] == vm.vm_id]

    def statuses(self, vm: vm_xml.Vm) -> list[str]:
        return [told["status"] for told in self.of(vm)]

    def ends(self, vm: vm_xml.Vm) -> list[tuple[int, int]]:
        """Code and reason of each Down."""
        return [(told["exitCode"], told["exitReason"]) for told in self.of(vm) if told["status"] == "Down"]

    async def until(self, vm: vm_xml.Vm, status: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """The event of that status."""

        async def look() -> dict[str, Any] | None:
            return next((told for told in self.of(vm) if told["status"] == status), None)

        answer: dict[str, Any] = await engine.until(f"{status} is told of {vm.name}", look, timeout_s=timeout_s)
        return answer


@contextlib.asynccontextmanager
async def listening(client: Client) -> AsyncIterator[Told]:
    """What is told while the body runs, also by a further agent."""
    told = Told()
    notices = await client.listen()

    async def listen() -> None:
        async for notice in notices:
            if notice.operation == "VM_status":
                told.all.append(notice.params[notice.unique_id])

    task = asyncio.create_task(listen())
    try:
        yield told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def faulty_disk(host: PrivateHost, path: str) -> Iterator[Callable[[str], None]]:
    """While the body runs, that file of the host behaves as the last word says: see `contrib.lab.faulty_disk`."""
    command = host.command(["env", "-C", PREFIX, PYTHON, "-m", "contrib.lab.faulty_disk", path])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as disk:
        assert disk.stdin is not None
        assert disk.stdout is not None
        try:
            assert disk.stdout.readline() == "mounted\n"

            def behave(word: str) -> None:
                assert disk.stdin is not None
                assert disk.stdout is not None
                disk.stdin.write(f"{word}\n")
                disk.stdin.flush()
                assert disk.stdout.readline() == f"{word}\n"

            yield behave
        finally:
            disk.stdin.close()
            disk.wait(timeout=10)


async def until_settled(client: Client, vm: vm_xml.Vm, *statuses: str, timeout_s: float = 30.0) -> None:
    await engine.wait_vm(client, vm.vm_id, *statuses, timeout_s=timeout_s)


async def start(client: Client, vm: vm_xml.Vm, status: str = "Up") -> None:
    await engine.create_vm(client, vm)
    await engine.wait_vm(client, vm.vm_id, status)


async def destroy_told(client: Client, told: Told, vm: vm_xml.Vm) -> None:
    """Destroy it, and wait for the event, which may come after the answer."""
    await client.call("VM.destroy", {"vmID": vm.vm_id}, timeout_s=60)
    await told.until(vm, "Down")


def lives(host: PrivateHost, pid: int) -> bool:
    """Also a process whose first thread has ended: it has no command line any more."""
    return host.path(f"/proc/{pid}").exists()


def qemu_of(host: PrivateHost, vm: vm_xml.Vm) -> int:
    """Its number inside the host; 0 when there is none."""
    found = host.run(["pgrep", "-f", f"guest={vm.name},"], check=False).stdout.split()
    return int(found[0]) if found else 0


def check_nothing_runs(host: PrivateHost, vm: vm_xml.Vm, volume: engine.Volume) -> None:
    """Of a VM that is Down, told or forgotten."""
    assert vm.vm_id not in domains(host)
    assert qemu_of(host, vm) == 0
    assert not is_prepared(host, volume)
    assert not host.path(f"/run/vdsm/{vm.vm_id}").exists()


def check_nothing_left(host: PrivateHost, vm: vm_xml.Vm, volume: engine.Volume) -> None:
    """Of a VM that was destroyed."""
    check_nothing_runs(host, vm, volume)
    assert vm.vm_id not in records(host)
    check_no_half_file(host)


def check_no_half_file(host: PrivateHost) -> None:
    """Files are written beside their place, under a name with a dot before, and renamed: nothing of that stays."""
    assert host.run(["find", "/var/lib/vdsm", "/run/vdsm", "-name", ".*"]).stdout.decode() == ""


async def seconds(client: Client, verb: str, vm: vm_xml.Vm) -> float:
    """How long the answer takes, whatever it is."""
    began = time.monotonic()
    with contextlib.suppress(RpcError):
        await client.call(verb, {"vmID": vm.vm_id}, timeout_s=90)
    return time.monotonic() - began


async def code_of(client: Client, verb: str, vm: vm_xml.Vm, **params: Any) -> int:
    """0 when it succeeded."""
    try:
        await client.call(verb, {"vmID": vm.vm_id, **params}, timeout_s=120)
    except RpcError as e:
        return int(e.code)
    return 0
