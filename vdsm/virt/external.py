# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains on this host that are not the agent's (virsh, virt-manager): reported while they run, and left alone.

Engines show them as external VMs (virt.md §28). What they are is what libvirt says of them; nothing of them is ever
changed, and nothing is kept on record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from vdsm.common.errors import AgentError
from vdsm.common.xml import parse
from vdsm.virt import report
from vdsm.virt.domain_xml.description import Description, describe
from vdsm.virt.errors import ForeignDomain
from vdsm.virt.hypervisor import Domain, Domains, DomainState
from vdsm.virt.look import Look
from vdsm.virt.recovery import is_foreign
from vdsm.virt.states import PauseCode, VmState

log = logging.getLogger("vdsm.virt")

_PREFIXES = ("guestfs-",)  # appliances that live for seconds
Json = report.Json


class ExternalVm:
    """As `report` shows it."""

    def __init__(self, domain: Domain, description: Description) -> None:
        self.vm_id = domain.vm_id
        self.description = description
        self.paused = domain.state is DomainState.PAUSED

    def brief(self) -> Json:
        status = VmState.PAUSED if self.paused else VmState.UP
        told = report.stamped(self.vm_id, status) | {"hash": self.description.devices_digest}
        return told | ({"pauseCode": str(PauseCode.NO_ERROR)} if self.paused else {})

    def stats(self) -> Json:
        kvm = "true" if self.description.kvm else "false"
        return self.brief() | {"vmName": self.description.name, "vmType": "kvm", "kvmEnable": kvm, "vmJobs": {}}


class ExternalVms:
    def __init__(self, hypervisor: Domains, ours: Callable[[str], None]) -> None:
        """``ours`` is given the ids of domains that run and are the agent's: somebody started one behind its back."""
        self._hypervisor = hypervisor
        self._ours = ours
        self._found: dict[str, ExternalVm] = {}
        self._looks: dict[str, Look] = {}
        self._one_at_a_time = asyncio.Lock()
        # of whom was heard since the list of all began: their own looks know better
        self._heard: set[str] = set()

    def all(self) -> list[ExternalVm]:
        return list(self._found.values())

    def get(self, vm_id: str) -> ExternalVm | None:
        return self._found.get(vm_id)

    def refuse(self, vm_id: str) -> None:
        """Raises `ForeignDomain` for the id of one that runs."""
        if vm_id in self._found:
            raise ForeignDomain(vm_id, self._found[vm_id].description.name)

    def take(self, domains: Iterable[Domain]) -> None:
        """What was seen in a list of all domains."""
        self._found.clear()
        for domain in domains:
            self._put(domain, _read(domain))

    async def look_at_all(self) -> None:
        """Events were missed: see which are there. To read the XML of many takes longer than the loop may stand."""
        async with self._one_at_a_time:
            self._heard.clear()
            try:
                domains = await self._hypervisor.domains()
            except AgentError as e:  # away again: there will be another return
                log.warning("the domains that are not ours: %s", e)
                return
            found = await asyncio.to_thread(lambda: [(domain, _read(domain)) for domain in domains])
            self._found = {vm_id: vm for vm_id, vm in self._found.items() if vm_id in self._heard}
            for domain, read in found:
                if domain.vm_id not in self._heard:
                    self._put(domain, read)

    def hear(self, vm_id: str) -> None:
        """Something happened to a domain that is none of ours: one look at a time, the last after the last event."""
        if self._one_at_a_time.locked():
            self._heard.add(vm_id)
        look = self._looks.get(vm_id)
        if look is None:
            look = self._looks[vm_id] = Look(vm_id, self._hypervisor.domain, partial(self._seen, vm_id))
        look.soon()

    def close(self) -> None:
        for look in self._looks.values():
            look.close()

    def _seen(self, vm_id: str, domain: Domain | None, _number: int) -> None:
        if domain is not None:
            self._put(domain, _read(domain))
        else:
            self._found.pop(vm_id, None)
            self._looks.pop(vm_id, None)

    def _put(self, domain: Domain, read: ExternalVm | _Ours | None) -> None:
        self._found.pop(domain.vm_id, None)
        if isinstance(read, _Ours):
            self._ours(domain.vm_id)
        elif read is not None:
            self._found[domain.vm_id] = read


class _Ours:
    """A domain of the agent's that runs."""


def _read(domain: Domain) -> ExternalVm | _Ours | None:
    """None: nothing is shown of it."""
    if not domain.active or domain.name.startswith(_PREFIXES):
        return None
    if not is_foreign(domain):
        return _Ours()
    try:
        return ExternalVm(domain, describe(parse(domain.xml, what=f"libvirt's XML of domain {domain.vm_id}")))
    except AgentError as e:
        log.info("the foreign domain %s is not shown: %s", domain.name, e)
        return None
