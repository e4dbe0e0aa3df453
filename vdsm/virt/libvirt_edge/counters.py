# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's flat statistics of one domain as typed words.

Total: whatever stands in an entry, there is an answer, and what is missing or no number is not known. So an odd domain
costs its own figures and nobody else's.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from vdsm.virt.hypervisor import Sampled
from vdsm.virt.libvirt_edge.translation import domain_state
from vdsm.virt.stats.counters import Block, Counters, Nic

# field of ours -> libvirt's name
_PLAIN = {
    "cpu_time": "cpu.time",
    "cpu_user": "cpu.user",
    "cpu_system": "cpu.system",
    "vcpus": "vcpu.current",
    "memory": "balloon.current",
    "memory_maximum": "balloon.maximum",
    "available": "balloon.available",
    "unused": "balloon.unused",
    "caches": "balloon.disk_caches",
    "swap_in": "balloon.swap_in",
    "swap_out": "balloon.swap_out",
    "major_faults": "balloon.major_fault",
    "minor_faults": "balloon.minor_fault",
}
# all but their names, in order
_BLOCK = Block.__struct_fields__[1:]
_NIC = Nic.__struct_fields__[1:]


def read(values: Mapping[str, Any]) -> Sampled:
    state, reason = _number(values.get("state.state")), _number(values.get("state.reason"))
    known, why = (None, "") if state is None else domain_state(state, reason or 0)
    return Sampled(known, why, _counters(values))


def _counters(values: Mapping[str, Any]) -> Counters:
    return Counters(
        # libvirt adds QEMU's own memory in the step in which it asks QEMU, and only there
        whole="balloon.rss" in values,
        balloon="balloon.last-update" in values,
        blocks=tuple(Block(name, *numbers) for name, numbers in _devices(values, "block", _BLOCK)),
        nics=tuple(Nic(name, *numbers) for name, numbers in _devices(values, "net", _NIC)),
        **{ours: _number(values.get(theirs)) for ours, theirs in _PLAIN.items()},
    )


def _devices(values: Mapping[str, Any], kind: str, fields: tuple[str, ...]) -> list[tuple[str, list[int | None]]]:
    count = _number(values.get(f"{kind}.count")) or 0
    found = []
    for number in range(min(count, len(values))):  # an odd count must not keep the thread for ever
        name_key, *keys = _keys(kind, number, fields)
        name = values.get(name_key)
        if isinstance(name, str) and name:
            found.append((name, [_number(values.get(key)) for key in keys]))
    return found


@functools.lru_cache(4096)
def _keys(kind: str, number: int, fields: tuple[str, ...]) -> tuple[str, ...]:
    """Of a device; most hosts have the same few numbers again and again."""
    return tuple(f"{kind}.{number}.{field.replace('_', '.')}" for field in ("name", *fields))


def _number(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
