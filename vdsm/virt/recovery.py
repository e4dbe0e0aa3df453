# SPDX-License-Identifier: GPL-2.0-or-later
"""What to do with each VM after a restart of the agent. Pure: records and libvirt's domains in, decisions out.

    libvirt is the truth about what runs, the record about what was begun and how it was to end. `recover` acts on it.

    record      domain runs               domain is off             no domain
    starting    take it over              release it                release it: the start was interrupted
    launching   take it over              release it                release it: the start was interrupted
    running     take it over              release it: it died       release it: it died
    releasing   go on releasing           go on releasing           go on releasing
    down        take it over (odd)        report Down               report Down
    left        take it over (odd)        its images go             its images go
    none        take it over when ours    report Down when ours     -

A record that says starting was never asked of libvirt: what runs then was started by somebody else, and runs on.
A domain without the agent's metadata is foreign and left alone. A domain of ours that can't be read is taken
over as far as its record and libvirt's state tell, and told as a problem; nothing is destroyed because it
could not be understood.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from vdsm.common.errors import AgentError
from vdsm.common.xml import parse
from vdsm.virt.domain_xml.description import Description, describe, is_ours
from vdsm.virt.domain_xml.metadata import VmMetadata
from vdsm.virt.hypervisor import Domain
from vdsm.virt.records import Phase, Record
from vdsm.virt.sight import exit_of
from vdsm.virt.states import Exit, ExitReason, exit_for

log = logging.getLogger("vdsm.virt")


class Action(StrEnum):
    ADOPT = "take over"
    RELEASE = "release"
    REPORT_DOWN = "report down"
    CLEAN = "tear down what is left"


@dataclass(frozen=True)
class Decision:
    action: Action
    record: Record
    description: Description
    domain: Domain | None = None
    exit: Exit | None = None
    problem: str = ""
    # QEMU was started, after_vm_start may not have run
    start_unfinished: bool = False


_INTERRUPTED = "The agent ended while it was starting the VM"


def decide(records: Iterable[Record], unreadable: Mapping[str, str], domains: Iterable[Domain]) -> list[Decision]:
    """One decision for each VM of ours, in a stable order."""
    by_id = {record.vm_id: record for record in records}
    decisions = []
    seen = {}
    for domain in domains:
        seen[domain.vm_id] = domain
        if domain.vm_id not in by_id:
            decisions += _without_record(domain, unreadable)
    for record in by_id.values():
        decisions.append(_with_record(record, seen.get(record.vm_id)))
    return sorted(decisions, key=lambda decision: decision.record.vm_id)


def _with_record(record: Record, domain: Domain | None) -> Decision:
    description, problem = _understand(record, domain)
    if domain is not None and is_foreign(domain):
        problem = f"libvirt has a foreign domain {domain.name!r} with this uuid"
        domain = None
    if record.phase is Phase.RELEASING:
        return Decision(Action.RELEASE, record, description, domain, record.exit, problem)
    if domain is not None and domain.active:
        unfinished = record.phase is Phase.LAUNCHING
        return Decision(Action.ADOPT, record, description, domain, None, problem, unfinished)
    if record.phase is Phase.LEFT:
        return Decision(Action.CLEAN, record, description, None, record.exit, problem)
    if record.phase is Phase.DOWN:
        return Decision(Action.REPORT_DOWN, record, description, None, record.exit, problem)
    return Decision(Action.RELEASE, record, description, domain, _exit_of(record, domain), problem)


def _exit_of(record: Record, domain: Domain | None) -> Exit:
    if record.phase is not Phase.RUNNING:
        return exit_for(ExitReason.GENERIC_ERROR, _INTERRUPTED)
    if record.heard is None and domain is not None and domain.reason == "destroyed":
        return exit_for(ExitReason.ADMIN_SHUTDOWN)  # by whoever, on purpose: nobody heard an event that says otherwise
    return exit_of(domain, record)


def _without_record(domain: Domain, unreadable: Mapping[str, str]) -> list[Decision]:
    problem = unreadable.get(domain.vm_id, "")
    try:
        root = parse(domain.xml, what=f"libvirt's XML of domain {domain.vm_id}")
        if not is_ours(root):
            return []
        description = describe(root)
    except AgentError as e:
        log.error("domain %s (%s) can't be understood and is left alone: %s", domain.vm_id, domain.name, e)
        if not domain.active:
            return []
        description, problem = _bare(domain.vm_id, domain.name), problem or str(e)
    record = Record(
        vm_id=domain.vm_id,
        name=domain.name,
        phase=Phase.RUNNING if domain.active else Phase.DOWN,
        xml=domain.xml,
        images=tuple(d.image for d in description.drives if d.image is not None),
        started_at_s=description.metadata.started_at_s,
    )
    if domain.active:
        return [Decision(Action.ADOPT, record, description, domain, None, problem)]
    exit_ = exit_for(ExitReason.DOMAIN_MISSING)
    record = msgspec.structs.replace(record, exit=exit_)
    return [Decision(Action.RELEASE, record, description, domain, exit_, problem)]


def _understand(record: Record, domain: Domain | None) -> tuple[Description, str]:
    """The live XML when it can be read, else the recorded one, else the bare name."""
    problem = ""
    for xml in ([] if domain is None else [domain.xml]) + [record.xml]:
        try:
            return describe(parse(xml, what=f"the XML of VM {record.vm_id}")), problem
        except AgentError as e:
            problem = problem or str(e)
    return _bare(record.vm_id, record.name), problem


def is_foreign(domain: Domain) -> bool:
    """A domain that can be read and has no metadata of ours. One that can't be read is the recorded VM."""
    try:
        return not is_ours(parse(domain.xml, what=f"libvirt's XML of domain {domain.vm_id}"))
    except AgentError:
        return False


def _bare(vm_id: str, name: str) -> Description:
    return Description(vm_id, name, VmMetadata(), (), (), (), False, False, False, "", "")
