# SPDX-License-Identifier: GPL-2.0-or-later
"""What a crash may leave on a file domain, removed or mended.

Only names of ours are touched: files named by a UUID (with ``.lease`` or
``.new…`` after it) that no metadata claims, empty image folders. Run by the holder of the SDM lease
before its first change, never while one runs: a volume that is being made looks just like garbage.
"""

from __future__ import annotations

import contextlib
import os

from storage.domain import Garbage
from storage.errors import DAMAGED, IoFailed, VolumeNotFound
from storage.file import volumes
from storage.file.files import IMAGES, LEASE, META, NEW, DomainFiles
from storage.ondisk.values import VolumeRole
from vdsm.common.ids import is_uuid

TEMPORARY = tuple(f"{suffix}{NEW}." for suffix in ("", META, LEASE))


async def collect(files: DomainFiles) -> Garbage:
    files.check_writable()
    removed: list[str] = []
    mended: list[str] = []
    for name in await files.io.list_folder(files.place(IMAGES)):
        if is_uuid(name):
            removed += await _unclaimed(files, name)
            mended += await _childless(files, name)
    return Garbage(tuple(removed), tuple(mended))


async def _unclaimed(files: DomainFiles, image_id: str) -> list[str]:
    names = set(await files.io.list_folder(files.image(image_id)))
    removed = []
    for name in sorted(names):
        volume_id, kind, rest = name.partition(".")
        temporary = f"{kind}{rest}.".startswith(TEMPORARY)
        unclaimed = volume_id + META not in names and f"{kind}{rest}" in ("", LEASE)
        if is_uuid(volume_id) and (temporary or unclaimed):
            await files.remove_payload(image_id, name)
            removed.append(os.path.join(IMAGES, image_id, name))
    if len(removed) == len(names):
        with contextlib.suppress(IoFailed):  # not empty: something came that is not ours
            await files.io.remove_folder(files.image(image_id))
            removed.append(os.path.join(IMAGES, image_id))
    return removed


async def _childless(files: DomainFiles, image_id: str) -> list[str]:
    mended = []
    if not await files.io.exists(files.image(image_id)):
        return []
    for volume_id in await files.image_volumes(image_id):
        try:
            metadata = await files.read_volume(image_id, volume_id)
            internal = metadata.role is VolumeRole.INTERNAL
            if internal and await volumes.free_parent(files, image_id, volume_id):
                mended.append(os.path.join(IMAGES, image_id, volume_id))
        except (VolumeNotFound, *DAMAGED):
            continue  # told when somebody uses it; garbage collection repairs no content
    return mended
