# SPDX-License-Identifier: GPL-2.0-or-later
"""A hypervisor without guests, behind the Protocols of `vdsm.virt.hypervisor`: as many VMs as a measurement wants.

Nothing is simulated of the way in: domains have an XML as an engine makes it, and statistics come as libvirt's flat
names, made anew in a thread with the interpreter held (a JSON decoder in C stands for libvirt's binding), and read by
the agent's own reader. They grow from sample to sample.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from contrib.lab import vm_xml
from vdsm.common.events import Events
from vdsm.common.paths import Paths
from vdsm.virt.domain_xml.placeholders import HostFacts
from vdsm.virt.errors import DomainMissing
from vdsm.virt.hypervisor import Domain, DomainState, HypervisorEvent, Sampled, Stats
from vdsm.virt.libvirt_edge.counters import read
from vdsm.virt.vms import Vms

POOL = "00000000-0000-0000-0000-00000000feed"
STORAGE = "00000000-0000-0000-0000-0000000000da"
_BLOCK = ("rd.reqs", "rd.bytes", "rd.times", "wr.reqs", "wr.bytes", "wr.times", "fl.reqs", "fl.times")
_NIC = ("rx.bytes", "rx.pkts", "rx.errs", "rx.drop", "tx.bytes", "tx.pkts", "tx.errs", "tx.drop")
_MEMORY = ("unused", "available", "usable", "disk_caches", "swap_in", "swap_out", "major_fault", "minor_fault")
_VCPU = ("state", "time", "wait", "delay", "halted")
# libvirt 11 tells them of each vCPU, too
_KVM = ("exits", "halt_exits", "io_exits", "irq_exits", "mmio_exits", "signal_exits", "tlb_flush", "nmi_injections")


class SimulatedHypervisor:
    def __init__(self, count: int, *, disks: int = 10, nics: int = 2, vcpus: int = 4) -> None:
        ids = [str(uuid.UUID(int=(1 << 64) + number)) for number in range(count)]
        self._states = dict.fromkeys(ids, DomainState.RUNNING)
        self._xml = {vm_id: _xml(vm_id, disks, nics) for vm_id in ids}
        self._flat = [
            msgspec.json.encode({vm_id: _flat(grown, disks, nics, vcpus) for vm_id in ids})
            for grown in (1_000_000, 2_000_000)
        ]
        self.samples = 0

    async def start(self, hear: Callable[[HypervisorEvent], None]) -> None: ...

    async def stop(self) -> None: ...

    async def domains(self) -> list[Domain]:
        return [self._domain(vm_id) for vm_id in self._states]

    async def domain(self, vm_id: str) -> Domain:
        return self._domain(vm_id)

    def check_free(self, vm_id: str) -> None: ...

    async def define(self, xml: str) -> None: ...

    async def launch(self, vm_id: str, flags: int) -> Domain:
        return self._domain(vm_id)

    async def pause(self, vm_id: str) -> None:
        self._states[vm_id] = DomainState.PAUSED

    async def resume(self, vm_id: str) -> None:
        self._states[vm_id] = DomainState.RUNNING

    async def reset(self, vm_id: str) -> None: ...

    async def terminate(self, vm_id: str) -> None:
        self._states.pop(vm_id, None)

    async def kill(self, vm_id: str) -> None:
        self._states.pop(vm_id, None)

    async def undefine(self, vm_id: str) -> None: ...

    async def ask_shutdown(self, vm_id: str) -> None: ...

    async def ask_agent_shutdown(self, vm_id: str) -> None: ...

    async def ask_reboot(self, vm_id: str) -> None: ...

    async def ask_agent_reboot(self, vm_id: str) -> None: ...

    async def freeze(self, vm_id: str) -> int:
        return 0

    async def thaw(self, vm_id: str) -> int:
        return 0

    async def set_metadata(self, vm_id: str, xml: str) -> None: ...

    async def disk_errors(self, vm_id: str) -> Mapping[str, str]:
        return {}

    async def statistics(self) -> Stats:
        self.samples += 1
        return await asyncio.to_thread(_read_all, self._flat[self.samples % 2])

    async def statistics_of(self, vm_id: str) -> Sampled:
        return (await self.statistics())[vm_id]

    async def active_networks(self) -> frozenset[str]:
        return frozenset()

    async def filters(self) -> frozenset[str]:
        return frozenset()

    def _domain(self, vm_id: str) -> Domain:
        if vm_id not in self._states:
            raise DomainMissing(vm_id)
        state = self._states[vm_id]
        reason = "user" if state is DomainState.PAUSED else "booted"
        return Domain(vm_id, f"vm-{vm_id[-4:]}", state, reason, self._xml[vm_id], active=True)


class _Prepared:
    path, kind, format = "/dev/null", "file", "raw"


class NoImages:
    """Storage on which everything is there already."""

    async def prepare_image(
        self, pool_id: str, domain_id: str, image_id: str, volume_id: str, *, consumer: str
    ) -> _Prepared:
        return _Prepared()

    async def teardown_image(self, pool_id: str, domain_id: str, image_id: str, *, consumer: str) -> None: ...

    async def resume_prepared(
        self, images: Sequence[tuple[str, str, str, str]], *, consumer: str
    ) -> list[tuple[str, str, str, str]]:
        return []


class NoHooks:
    async def run_xml(
        self, point: str, xml: str | None, *, vm: Any = None, env: Mapping[str, str] | None = None
    ) -> str:
        return xml or ""

    async def run_empty(self, point: str, *, vm: Any = None, env: Mapping[str, str] | None = None) -> None: ...


def new_vms(hypervisor: SimulatedHypervisor, folder: Path, events: Events, *, period_s: float) -> Vms:
    """The agent's VMs on that hypervisor; their records are below ``folder``."""
    (folder / "run").mkdir()
    return Vms(
        paths=Paths(run=str(folder / "run"), state=str(folder / "state")),
        storage=NoImages(),
        hooks=NoHooks(),
        events=events,
        hypervisor=hypervisor,
        facts=HostFacts(os_name="Bench", os_version="1", host_id="bench", kvm=False),
        stats_interval_s=period_s,
        host_root=str(folder / "root"),
        processes=dict,
    )


def _read_all(encoded: bytes) -> Stats:
    entries = msgspec.json.decode(encoded)
    found = {}
    while entries:
        vm_id, values = entries.popitem()
        found[vm_id] = read(values)
    return found


def _xml(vm_id: str, disks: int, nics: int) -> str:
    shown = [
        vm_xml.Disk(POOL, STORAGE, _id(vm_id, number), _id(vm_id, 100 + number), target=f"vd{chr(97 + number)}")
        for number in range(disks)
    ]
    text = vm_xml.to_xml(vm_xml.Vm(vm_id, f"vm-{vm_id[-4:]}", disks=shown, bridges=["ovirtmgmt"] * nics, kind="qemu"))
    for number in range(nics):
        text = text.replace('<source bridge="ovirtmgmt"/>', f'<source bridge="x"/><target dev="vnet{number}"/>', 1)
    return text


def _id(vm_id: str, number: int) -> str:
    return str(uuid.UUID(int=uuid.UUID(vm_id).int * 1000 + number))


def _flat(grown: int, disks: int, nics: int, vcpus: int) -> dict[str, Any]:
    flat: dict[str, Any] = {"state.state": 1, "state.reason": 1}
    flat |= {f"cpu.{name}": 1000 * grown + 1 for name in ("time", "user", "system")}
    flat |= {"balloon.current": 4 << 20, "balloon.maximum": 4 << 20, "balloon.rss": 1 << 20, "balloon.last-update": 9}
    flat |= {f"balloon.{name}": grown + place for place, name in enumerate(_MEMORY)}
    flat |= {"vcpu.current": vcpus, "vcpu.maximum": vcpus, "net.count": nics, "block.count": disks}
    for number in range(vcpus):
        flat |= {f"vcpu.{number}.{name}": grown + number for name in (*_VCPU, *_KVM)}
    for number in range(nics):
        flat |= {f"net.{number}.name": f"vnet{number}"} | {f"net.{number}.{name}": grown + number for name in _NIC}
    for number in range(disks):
        key = f"block.{number}"
        flat |= {f"{key}.name": f"vd{chr(97 + number)}", f"{key}.path": f"/rhev/data-center/{number}"}
        flat |= {f"{key}.{name}": grown * (number + 1) for name in _BLOCK}
        flat |= {f"{key}.{name}": 10 << 30 for name in ("allocation", "capacity", "physical", "backingIndex")}
    return flat
