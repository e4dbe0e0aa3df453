# SPDX-License-Identifier: GPL-2.0-or-later
"""What lies in an ISO domain: files of any name in one folder and those below it; links are not followed."""

from __future__ import annotations

import os

from storage.domain import PeoplesFile
from storage.errors import IoFailed
from storage.file.files import DomainFiles
from storage.ondisk.layout import ISO_IMAGE_ID

MAX_FILES = 10_000
GONE = ("ENOENT", "ENOTDIR")


async def peoples_files(files: DomainFiles) -> dict[str, PeoplesFile]:
    """By relative name; what goes while it is looked at is left out. Raises `IoFailed` (E2BIG)."""
    top = files.image(ISO_IMAGE_ID)
    found: dict[str, PeoplesFile] = {}
    looked_at = 0
    folders = [""]
    while folders:
        folder = folders.pop()
        for name in await _names(files, os.path.join(top, folder)):
            looked_at += 1
            if looked_at > MAX_FILES:
                raise IoFailed("list", top, "E2BIG", f"more than {MAX_FILES} files lie there")
            relative = os.path.join(folder, name)
            try:
                status = await files.io.status(os.path.join(top, relative))
            except IoFailed as e:
                if e.error in GONE:
                    continue
                raise
            if status.is_folder:
                folders.append(relative)
            elif status.is_file:
                found[relative] = PeoplesFile(status.size, status.changed, status.mode, status.uid, status.gid)
    return found


async def _names(files: DomainFiles, folder: str) -> list[str]:
    try:
        return await files.io.list_folder(folder)
    except IoFailed as e:
        if e.error in GONE:
            return []
        raise
