# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM as statistics look at it, without anything behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vdsm.common.xml import parse
from vdsm.virt.domain_xml.description import Description, describe
from vdsm.virt.lifecycle import Cause, Lifecycle
from vdsm.virt.states import Exit

from .fakes import xml_of


def described(xml: str) -> Description:
    return describe(parse(xml, what="test"))


@dataclass(eq=False)
class ShownVm:
    vm_id: str
    xml: str = ""
    status: Lifecycle = field(default_factory=Lifecycle)
    time_offset_s: int = 0
    started_at_s: float | None = None
    description: Description = field(init=False)

    def __post_init__(self) -> None:
        self.description = described(self.xml or xml_of(self.vm_id))
        self.status.apply(Cause.RUNS)

    def report(self) -> dict[str, Any]:
        return {}

    def goes_down(self, exit_: Exit) -> None:
        self.status.apply(Cause.ENDS)
        self.status.apply(Cause.GONE, exit_=exit_)
