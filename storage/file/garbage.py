# SPDX-License-Identifier: GPL-2.0-or-later
"""What a crash may leave on a file domain, removed or mended.

Only names of ours are touched: files named by a UUID (with ``.lease`` or
``.new…`` after it) that neither metadata nor a stored task claims, empty image folders. Run by the holder of the SDM
lease before its first change, never while one runs: a volume that is being made looks just like garbage.
"""

from __future__ import annotations

import contextlib
import os

from storage.domain import Garbage, VolumeStore
from storage.errors import ImageNotFound, IoFailed
from storage.file import payload
from storage.file.files import IMAGES, LEASE, META, NEW, DomainFiles
from storage.removal import mend_parents
from vdsm.common.ids import is_uuid

TEMPORARY = tuple(f"{suffix}{NEW}." for suffix in ("", META, LEASE))


async def collect(files: DomainFiles, store: VolumeStore, claimed: frozenset[tuple[str, str]]) -> Garbage:
    removed: list[str] = []
    mended: list[str] = []
    for name in await files.io.list_folder(files.place(IMAGES)):
        if is_uuid(name):
            removed += await _unclaimed(files, name, claimed)
            with contextlib.suppress(ImageNotFound):  # it was empty
                mended += [os.path.join(IMAGES, name, volume) for volume in await mend_parents(store, name)]
    return Garbage(tuple(removed), tuple(mended))


async def _unclaimed(files: DomainFiles, image_id: str, claimed: frozenset[tuple[str, str]]) -> list[str]:
    names = set(await files.io.list_folder(files.image(image_id)))
    removed = []
    for name in sorted(names):
        volume_id, kind, rest = name.partition(".")
        temporary = f"{kind}{rest}.".startswith(TEMPORARY)
        unclaimed = volume_id + META not in names and f"{kind}{rest}" in ("", LEASE)
        if is_uuid(volume_id) and (temporary or unclaimed) and (image_id, volume_id) not in claimed:
            await payload.remove(files, files.volume(image_id, name))
            removed.append(os.path.join(IMAGES, image_id, name))
    if len(removed) == len(names) and (image_id, "") not in claimed:
        with contextlib.suppress(IoFailed):  # not empty: something came that is not ours
            await files.io.remove_folder(files.image(image_id))
            removed.append(os.path.join(IMAGES, image_id))
    return removed
