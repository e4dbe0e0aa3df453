# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes that tests want, and steps back done on a domain as a task's are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from memory_source import MemorySource

from storage.domain import Domain, VolumeStore
from storage.domains import Domains
from storage.halves import STEPS_BACK
from storage.new_volume import NewVolume
from storage.ondisk.values import Allocation, VolumeFormat
from storage.spm.recoveries import Recoveries
from storage.tasks.record import Recovery
from vdsm.common.ids import new_uuid

MIB = 1 << 20


def raw(image: str, volume: str, size: int = MIB, **changes: Any) -> NewVolume:
    return NewVolume(image, volume, size, VolumeFormat.RAW, Allocation.SPARSE, **changes)


def cow(image: str, volume: str, parent: str = "", size: int = MIB, **changes: Any) -> NewVolume:
    return NewVolume(image, volume, size, VolumeFormat.COW, Allocation.SPARSE, parent_id=parent, **changes)


def clone(image: str, volume: str, template: str, base: str) -> NewVolume:
    return cow(image, volume, base, source_image_id=template)


async def made(volumes: VolumeStore, *wanted: NewVolume) -> None:
    for one in wanted:
        await volumes.create(one)


async def base_and_top(volumes: VolumeStore, image: str) -> tuple[str, str]:
    base, top = new_uuid(), new_uuid()
    await made(volumes, raw(image, base), cow(image, top, base))
    return base, top


async def roles(volumes: VolumeStore) -> dict[str, dict[str, str]]:
    """Images with the roles of their visible volumes."""
    listed = await volumes.by_image()
    return {image: {v: str((await volumes.read(image, v)).role) for v in ids} for image, ids in listed.items() if ids}


class Told:
    """A task: what it is told undoes what comes next."""

    def __init__(self) -> None:
        self.steps: list[Recovery] = []

    async def __call__(self, *steps_back: Recovery) -> None:
        self.steps += steps_back


class _Nobody:
    """An agent on whose host nothing is in use."""

    @asynccontextmanager
    async def removing(self, domain_id: str, image_id: str, volume_ids: Sequence[str]) -> AsyncIterator[None]:
        yield

    async def tell_odd_task(self, what: str) -> None:
        return


async def undo(domain: Domain, steps: Sequence[Recovery]) -> None:
    """The last one first, as the next SPM does: each stored and read again by its text alone."""
    recoveries = Recoveries(Domains(MemorySource(domain)), _Nobody(), STEPS_BACK)
    for step in reversed(steps):
        await recoveries.run(step)
