# SPDX-License-Identifier: GPL-2.0-or-later
"""Stored steps back: those that every kind of domain has, and what each of them is about (storage.md 11.3).

A stored task comes from shared storage, perhaps from another program. A reader here takes only parameters of the form
that the field stores, and of a path only the ids at its end: where they lie is for this host to know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from storage.tasks.record import Recovery
from storage.tasks.runner import StepInvalid
from vdsm.common.ids import is_uuid

SENTINEL = "rollback sentinel"
HALFBAKED = "Halfbaked volume rollback"


def parent_rollback(domain_id: str, image_id: str, parent_id: str) -> Recovery:
    """Not for a shared parent: there is nothing to undo, and the field's own callable refuses one."""
    params = (domain_id, image_id, parent_id)
    return Recovery(f"parent volume rollback: {parent_id}", "volume", "Volume", "parentVolumeRollback", params)


def size_finalize(domain_id: str, image_id: str, volume_id: str) -> Recovery:
    params = (domain_id, image_id, volume_id)
    return Recovery(f"Extend size for volume: {volume_id}", "volume", "Volume", "extendSizeFinalize", params)


@dataclass(frozen=True)
class Target:
    domain_id: str
    image_id: str
    volume_id: str = ""
    made: str = ""
    """Of the volume that the task made; empty when it is not known."""


Read = Callable[[Recovery], Target]
"""Raises `StepInvalid`."""


def by_ids(first: int, count: int) -> Read:
    """Ids of domain, image and volume from parameter ``first`` on, of ``count`` parameters in all."""

    def read(recovery: Recovery) -> Target:
        if len(recovery.params) != count or not all(is_uuid(p) for p in recovery.params[first : first + 3]):
            raise StepInvalid(recovery.call, f"{recovery.params!r} are not its {count} parameters")
        domain_id, image_id, volume_id = recovery.params[first : first + 3]
        return Target(domain_id, image_id, volume_id, recovery.made)

    return read


def by_path(*counts: int, parts: int) -> Read:
    """From the last parameter: a path that ends in ``<domain>/images/<image>[/<volume>]``."""

    def read(recovery: Recovery) -> Target:
        if len(recovery.params) not in counts:
            raise StepInvalid(recovery.call, f"it has {len(recovery.params)} parameters")
        ends = recovery.params[-1].split("/")[-parts - 1 :]
        domain_id, images, *ids = (*ends, "", "")
        ids = [part for part in ids if part]
        if images != "images" or len(ids) != parts - 1 or not all(is_uuid(part) for part in (domain_id, *ids)):
            raise StepInvalid(recovery.call, f"{recovery.params[-1]!r} is no path in a domain")
        return Target(domain_id, *ids)

    return read


READERS: Mapping[str, Read] = {
    "sd.StorageDomain.create_image_rollback": by_path(1, parts=2),
    "volume.Volume.parentVolumeRollback": by_ids(0, 3),
    "volume.Volume.extendSizeFinalize": by_ids(0, 3),
}
