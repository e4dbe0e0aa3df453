# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the scripts of a point may take, together and each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vdsm.hooking.points import POINTS, nearest


@dataclass(frozen=True)
class Limits:
    """``by_name`` has seconds for a point ("before_vm_start") or one script ("before_vm_start/50_smbios")."""

    default_s: float = 120.0
    by_name: Mapping[str, float] = field(default_factory=dict)

    def point_s(self, point: str) -> float:
        """All scripts of the point together."""
        return self.by_name.get(point, self.default_s)

    def script_s(self, point: str, script: str) -> float:
        """One script; never more than what is left of its point's time."""
        return self.by_name.get(f"{point}/{script}", self.point_s(point))

    def unknown_names(self) -> list[str]:
        """Complaints about limits that will never count."""
        found = []
        for name in self.by_name:
            point = name.partition("/")[0]
            if point not in POINTS:
                near = nearest(point)
                found.append(
                    f"[hook_timeouts] {name}: there is no such hook point" + (f"; did you mean {near}?" if near else "")
                )
        return found
