# SPDX-License-Identifier: GPL-2.0-or-later
"""Edges of VMs that answer from memory: a hypervisor, storage, hooks, and a place for events."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vdsm.common.paths import Paths
from vdsm.common.xml import parse
from vdsm.virt.domain_xml.placeholders import HostFacts
from vdsm.virt.errors import DomainMissing, HypervisorError, VmCallsHang
from vdsm.virt.hypervisor import Change, Domain, DomainEvent, DomainState, HypervisorEvent, Sampled, Stats
from vdsm.virt.libvirt_edge.counters import read
from vdsm.virt.qemu_process import QemuProcess
from vdsm.virt.vms import Vms

POOL, DOMAIN, IMAGE, VOLUME = (str(uuid.UUID(int=n)) for n in (1, 2, 3, 4))
VM = str(uuid.UUID(int=99))

FACTS = HostFacts(os_name="Test OS", os_version="7", host_id="host-1", kvm=False)


def new_id() -> str:
    return str(uuid.uuid4())


def disk(target: str = "vda", image: str = IMAGE) -> tuple[str, str]:
    """The disk element and its metadata."""
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file=''/>"
        f"<target dev='{target}' bus='virtio'/></disk>",
        f"<ovirt-vm:device devtype='disk' name='{target}'><ovirt-vm:poolID>{POOL}</ovirt-vm:poolID>"
        f"<ovirt-vm:domainID>{DOMAIN}</ovirt-vm:domainID><ovirt-vm:imageID>{image}</ovirt-vm:imageID>"
        f"<ovirt-vm:volumeID>{VOLUME}</ovirt-vm:volumeID></ovirt-vm:device>",
    )


def xml_of(
    vm_id: str = VM, *, disks: Sequence[tuple[str, str]] = (), metadata: str = "", more: str = "", devices: str = ""
) -> str:
    return (
        f"<domain type='kvm' xmlns:ovirt-vm='http://ovirt.org/vm/1.0'><name>vm-{vm_id[-4:]}</name><uuid>{vm_id}</uuid>"
        f"<memory>65536</memory><features><acpi/></features>{more}"
        f"<devices>{''.join(d for d, _ in disks)}{devices}</devices>"
        f"<metadata><ovirt-vm:vm>{metadata}{''.join(m for _, m in disks)}</ovirt-vm:vm></metadata></domain>"
    )


@dataclass
class FakeDomain:
    xml: str
    state: DomainState = DomainState.OFF
    reason: str = ""
    disk_errors: dict[str, str] = field(default_factory=dict)
    metadata: str = ""


@dataclass
class FakeHypervisor:
    found: dict[str, FakeDomain] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    hang: set[str] = field(default_factory=set)
    """VMs of which a call has not come back."""
    # call name -> what to do when it comes
    before: dict[str, Callable[[str], Awaitable[None]]] = field(default_factory=dict)
    hear: Callable[[HypervisorEvent], None] = lambda _event: None
    statistics_now: dict[str, dict[str, Any]] = field(default_factory=dict)
    networks: set[str] = field(default_factory=set)
    known_filters: set[str] = field(default_factory=set)

    async def start(self, hear: Callable[[HypervisorEvent], None]) -> None:
        self.hear = hear

    async def stop(self) -> None: ...

    async def domains(self) -> list[Domain]:
        return [self._shown(vm_id) for vm_id in self.found]

    async def domain(self, vm_id: str) -> Domain:
        await asyncio.sleep(0)
        return self._shown(vm_id)

    def check_free(self, vm_id: str) -> None:
        if vm_id in self.hang:
            raise VmCallsHang(vm_id, "libvirt/end", 1, "kill QEMU for 70 s")

    async def define(self, xml: str) -> None:
        vm_id = parse(xml, what="test").findtext("uuid") or ""
        await self._called("define", vm_id)
        self.found[vm_id] = FakeDomain(xml)

    async def launch(self, vm_id: str, flags: int) -> Domain:
        await self._called("launch", vm_id)
        self.found[vm_id].state = DomainState.PAUSED if flags & 1 else DomainState.RUNNING
        return self._shown(vm_id)

    async def pause(self, vm_id: str) -> None:
        await self._change("pause", vm_id, DomainState.PAUSED)

    async def resume(self, vm_id: str) -> None:
        await self._change("resume", vm_id, DomainState.RUNNING)

    async def ask_shutdown(self, vm_id: str) -> None:
        await self._called("ask_shutdown", vm_id)

    async def ask_agent_shutdown(self, vm_id: str) -> None:
        await self._called("ask_agent_shutdown", vm_id)

    async def ask_reboot(self, vm_id: str) -> None:
        await self._called("ask_reboot", vm_id)

    async def ask_agent_reboot(self, vm_id: str) -> None:
        await self._called("ask_agent_reboot", vm_id)

    async def freeze(self, vm_id: str) -> int:
        await self._called("freeze", vm_id)
        return 1

    async def thaw(self, vm_id: str) -> int:
        await self._called("thaw", vm_id)
        return 1

    async def disk_errors(self, vm_id: str) -> Mapping[str, str]:
        await self._called("disk_errors", vm_id)
        return self.found[vm_id].disk_errors

    async def set_metadata(self, vm_id: str, xml: str) -> None:
        await self._called("set_metadata", vm_id)
        self.found[vm_id].metadata = xml

    async def reset(self, vm_id: str) -> None:
        await self._called("reset", vm_id)

    async def terminate(self, vm_id: str) -> None:
        await self._change("terminate", vm_id, DomainState.OFF)
        self.tell(vm_id, Change.STOPPED)

    async def kill(self, vm_id: str) -> None:
        await self._change("kill", vm_id, DomainState.OFF)
        self.tell(vm_id, Change.STOPPED)

    async def undefine(self, vm_id: str) -> None:
        await self._called("undefine", vm_id)
        self._shown(vm_id)
        del self.found[vm_id]

    async def statistics(self) -> Stats:
        return {vm_id: read(values) for vm_id, values in self.statistics_now.items()}

    async def statistics_of(self, vm_id: str) -> Sampled:
        await self._called("statistics_of", vm_id)
        if vm_id not in self.statistics_now:
            raise DomainMissing(vm_id)
        return read(self.statistics_now[vm_id])

    async def active_networks(self) -> frozenset[str]:
        return frozenset(self.networks)

    async def filters(self) -> frozenset[str]:
        return frozenset(self.known_filters)

    # what tests do to it

    def tell(self, vm_id: str, change: Change) -> None:
        self.hear(DomainEvent(vm_id, change))

    def guest_ends(self, vm_id: str) -> None:
        self.found[vm_id].state = DomainState.OFF
        self.tell(vm_id, Change.SHUTDOWN_GUEST)
        self.tell(vm_id, Change.STOPPED)

    async def _change(self, name: str, vm_id: str, state: DomainState) -> None:
        await self._called(name, vm_id)
        self._shown(vm_id)
        self.found[vm_id].state = state

    async def _called(self, name: str, vm_id: str) -> None:
        self.calls.append(name)
        if name in self.before:
            await self.before[name](vm_id)
        await asyncio.sleep(0)

    def _shown(self, vm_id: str) -> Domain:
        if vm_id not in self.found:
            raise DomainMissing(vm_id)
        domain = self.found[vm_id]
        try:
            name = parse(domain.xml, what="test").findtext("name") or ""
        except Exception:
            name = "unreadable"
        active = domain.state not in (DomainState.OFF, DomainState.CRASHED)
        return Domain(vm_id, name, domain.state, domain.reason, domain.xml, active)


def refuse(text: str) -> Callable[[str], Awaitable[None]]:
    async def raise_it(_vm_id: str) -> None:
        raise HypervisorError("do it", 1, text)

    return raise_it


@dataclass(frozen=True)
class FakePrepared:
    path: str
    kind: str = "file"
    format: str = "cow"


@dataclass
class FakeStorage:
    """An image stays prepared until each of its users has torn it down."""

    users: dict[str, set[str]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fails: dict[str, Exception] = field(default_factory=dict)

    @property
    def prepared(self) -> set[str]:
        return {image_id for image_id, users in self.users.items() if users}

    async def prepare_image(
        self, pool_id: str, domain_id: str, image_id: str, volume_id: str, *, consumer: str
    ) -> FakePrepared:
        self.calls.append(f"prepare {image_id}")
        await asyncio.sleep(0)
        if image_id in self.fails:
            raise self.fails[image_id]
        self.users.setdefault(image_id, set()).add(consumer)
        return FakePrepared(f"/rhev/{image_id}/{volume_id}")

    async def teardown_image(self, pool_id: str, domain_id: str, image_id: str, *, consumer: str) -> None:
        self.calls.append(f"teardown {image_id}")
        self.users.get(image_id, set()).discard(consumer)

    async def resume_prepared(
        self, images: Sequence[tuple[str, str, str, str]], *, consumer: str
    ) -> list[tuple[str, str, str, str]]:
        lost = [image for image in images if consumer not in self.users.get(image[2], ())]
        for _, _, image_id, _ in images:
            self.users.setdefault(image_id, set()).add(consumer)
        return lost


@dataclass
class FakeHooks:
    ran: list[str] = field(default_factory=list)
    vms: list[Any] = field(default_factory=list)
    # point -> what its script does with the XML
    scripts: dict[str, Callable[[str], Awaitable[str]]] = field(default_factory=dict)

    async def run_xml(
        self, point: str, xml: str | None, *, vm: Any = None, env: Mapping[str, str] | None = None
    ) -> str:
        self.ran.append(point)
        self.vms.append(vm)
        if point in self.scripts:
            return await self.scripts[point](xml or "")
        return xml or ""

    def hang(self, point: str) -> asyncio.Event:
        """From now on the script of that point does not end by itself; set once it runs."""
        running = asyncio.Event()

        async def script(xml: str) -> str:
            running.set()
            await asyncio.Event().wait()
            return xml

        self.scripts[point] = script
        return running

    async def run_empty(self, point: str, *, vm: Any = None, env: Mapping[str, str] | None = None) -> None:
        await self.run_xml(point, None, vm=vm)


@dataclass
class FakeEvents:
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def publish(self, component: str, operation: str, unique_id: str, params: Mapping[str, Any]) -> None:
        self.told.append((f"|{component}|{operation}|{unique_id}", dict(params[unique_id])))

    def statuses(self, vm_id: str = VM) -> list[str]:
        return [params["status"] for name, params in self.told if name.endswith(vm_id)]

    def downs(self, vm_id: str = VM) -> list[dict[str, Any]]:
        return [params for name, params in self.told if name.endswith(vm_id) and params["status"] == "Down"]


class World:
    """One host whose agent can be killed and started again: edges and files stay, the parts are new."""

    def __init__(
        self,
        folder: Path,
        *,
        reconcile_s: float = 3600.0,
        start_slots: int = 4,
        host_goes_down: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.reconcile_s = reconcile_s
        self.start_slots = start_slots
        self.host_goes_down = host_goes_down or _stays_up
        self.root = folder / "root"
        self.paths = Paths(run=str(folder / "run"), state=str(folder / "state"))
        Path(self.paths.run).mkdir()
        self.hypervisor = FakeHypervisor()
        self.storage = FakeStorage()
        self.hooks = FakeHooks()
        self.events = FakeEvents()
        self.processes: dict[str, QemuProcess] = {}
        self.vms = self.new_vms()

    def new_vms(self) -> Vms:
        return Vms(
            paths=self.paths,
            storage=self.storage,
            hooks=self.hooks,
            events=self.events,
            hypervisor=self.hypervisor,
            facts=FACTS,
            stats_interval_s=0.05,
            processes=lambda: self.processes,
            reconcile_s=self.reconcile_s,
            start_slots=self.start_slots,
            host_goes_down=self.host_goes_down,
            host_root=str(self.root),
        )

    async def restart(self) -> None:
        """The agent ended, another one starts: nothing of the old one goes on, no event of it is kept."""
        await self.vms.stop()
        self.events.told.clear()
        self.vms = self.new_vms()
        await self.vms.start()

    def records(self) -> list[str]:
        return sorted(path.stem for path in Path(self.paths.state, "vms").glob("*.json"))


async def _stays_up() -> bool:
    return False


async def until(look: Callable[[], Any], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not look():
            await asyncio.sleep(0.002)


async def settle(turns: int = 50) -> None:
    """Let everything run that waits for nothing but its turn on the loop, or for a record to reach the disk."""
    for _ in range(5):
        for _ in range(turns // 5):
            await asyncio.sleep(0)
        writing = [task for task in asyncio.all_tasks() if task.get_name().startswith("record ")]
        if writing:
            await asyncio.wait(writing)
    for _ in range(turns):
        await asyncio.sleep(0)
