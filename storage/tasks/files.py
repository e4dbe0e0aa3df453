# SPDX-License-Identifier: GPL-2.0-or-later
"""What the task store needs of a master, and how a master's folders get to another one.

A master has two folders of the same form, each entry a folder with files: ``tasks``, and ``vms`` with the OVF of
each VM, which engines of long ago stored there. Both go along when the role of the master moves (storage.md 10.7).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from storage.errors import IoFailed

MAX_COPIED_BYTES = 8 << 20

# made by mkfs of a block domain's master
EXPECTED = frozenset({"lost+found"})

# of what is no folder with files: everything else that keeps an entry from being read keeps the role where it is
ODD = frozenset({"ENOTDIR", "EISDIR", "EFBIG", "ENOENT"})


class Files(Protocol):
    """The tasks' folder of a master: names are relative to it, every call has a deadline of its own."""

    folder: str
    """As stored tasks and messages name it."""

    async def listdir(self, name: str = "") -> list[str]:
        """Of a directory in the folder, or of the folder itself."""
        ...

    async def read(self, name: str, max_bytes: int) -> bytes: ...
    async def write_tree(self, name: str, files: Mapping[str, bytes]) -> None:
        """Make the directory with these files in this order, all flushed; an older one of that name goes first."""
        ...

    async def rename(self, old: str, new: str) -> None: ...
    async def remove_tree(self, name: str) -> None:
        """No error when there is none."""
        ...

    async def sync(self) -> None:
        """Flush the folder itself."""
        ...


@dataclass(frozen=True)
class MasterFolders:
    tasks: Files
    ovfs: Files


async def empty(files: Files) -> None:
    """Of a domain that is no master: nothing there counts any more."""
    for name in await files.listdir():
        if name not in EXPECTED:
            await files.remove_tree(name)


async def copy_all(source: Files, target: Files) -> list[str]:
    """Each entry, into an emptied ``target``; sentences on those that are no folder with files, which are not copied.

    Raises what reading or writing met: then the copy is not complete.
    """
    await empty(target)
    odd = []
    for name in await source.listdir():
        if name in EXPECTED:
            continue
        try:
            entries = await source.listdir(name)
            content = {entry: await source.read(os.path.join(name, entry), MAX_COPIED_BYTES) for entry in entries}
        except IoFailed as e:
            if e.error not in ODD:
                raise
            odd.append(f"{source.folder} holds {name[:80]!r}, which is no folder with files: {e}")
            continue
        await target.write_tree(name, content)
    await target.sync()
    return odd


async def remove_copied(source: Files, target: Files) -> None:
    """What stands in ``target`` as well; what does not is left."""
    copied = set(await target.listdir()) - EXPECTED
    for name in await source.listdir():
        if name in copied:
            await source.remove_tree(name)
