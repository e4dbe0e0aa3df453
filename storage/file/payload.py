# SPDX-License-Identifier: GPL-2.0-or-later
"""A volume's payload as a file: formatted, made larger, removed."""

from __future__ import annotations

from storage import qemu_img
from storage.file.files import DomainFiles
from storage.new_volume import Progress
from storage.ondisk.values import Allocation, VolumeFormat
from storage.ondisk.volume_metadata import VolumeMetadata
from vdsm.common.units import round_up

FIRST_BLOCK = 4096
ALLOCATE_SILENCE_S = 60.0
FILE_MODE = 0o660

LARGE = 16 << 30
"""Bytes that a file takes; a smaller one is gone at once."""


async def format_raw(files: DomainFiles, path: str, metadata: VolumeMetadata, progress: Progress | None) -> None:
    """The first block is there in every raw volume: QEMU finds out by it how it may read (storage.md 16.1)."""
    await files.io.write_direct(path, bytes(FIRST_BLOCK), offset=0)
    if metadata.allocation is Allocation.PREALLOCATED:
        # not made longer before: where space can't be reserved, only what is behind the end is written
        await _allocate(files, path, FIRST_BLOCK, metadata.capacity, progress)
    else:
        await files.io.truncate(path, metadata.capacity)


async def format_cow(
    files: DomainFiles,
    path: str,
    metadata: VolumeMetadata,
    parent: VolumeMetadata | None,
    progress: Progress | None,
) -> None:
    await qemu_img.create(
        path,
        metadata.capacity,
        VolumeFormat.COW,
        mount=files.io.mount,
        compat=files.version.qcow2_compat,
        backing=None if parent is None else (metadata.parent_id, parent.format),
        held=files.io.kept,
    )
    await files.io.chmod(path, FILE_MODE)
    if metadata.allocation is Allocation.PREALLOCATED:
        made = await qemu_img.check(path, VolumeFormat.COW, mount=files.io.mount, timeout_s=qemu_img.SHORT_S)
        end = made.image_end_offset or (await files.io.status(path)).size
        await _allocate(files, path, round_up(end, FIRST_BLOCK), metadata.capacity, progress)


async def extend(files: DomainFiles, path: str, size: int, allocation: Allocation) -> None:
    """Only what is behind the end of the file is written."""
    if allocation is Allocation.PREALLOCATED:
        await _allocate(files, path, (await files.io.status(path)).size, size, None)
    else:
        await files.io.truncate(path, size)


async def remove(files: DomainFiles, path: str) -> None:
    """Giving back what a large file takes may take long. Nothing happens when it is not there."""
    if await files.io.exists(path) and (await files.io.status(path)).allocated > LARGE:
        await files.io.discard(path)
    else:
        await files.io.remove(path)


async def _allocate(files: DomainFiles, path: str, begin: int, end: int, progress: Progress | None) -> None:
    if begin < end:
        await files.io.allocate(path, end, offset=begin, timeout_s=ALLOCATE_SILENCE_S, progress=progress)
