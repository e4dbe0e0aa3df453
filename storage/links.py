# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbolic links under the repository: ``<pool>/<domain>`` and ``<pool>/mastersd`` (storage.md 2.2).

They lie on a local disk, so they are made directly. A link is replaced by rename: at no time does it
point nowhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable

from vdsm.common.ids import is_uuid, new_uuid

MASTER = "mastersd"


class PoolLinks:
    def __init__(self, repository: str) -> None:
        self._repository = repository

    def make(self, pool_id: str, name: str, target: str) -> None:
        link = os.path.join(self._repository, pool_id, name)
        os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
        if not os.path.islink(link) or os.readlink(link) != target:
            replace_link(target, link)

    def keep_only(self, pool_id: str, names: Iterable[str]) -> None:
        """Remove links of domains that are active no more."""
        folder = os.path.join(self._repository, pool_id)
        with contextlib.suppress(FileNotFoundError):
            for name in set(os.listdir(folder)) - set(names) - {MASTER}:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))

    def remove(self, pool_id: str) -> None:
        shutil.rmtree(os.path.join(self._repository, pool_id), ignore_errors=True)

    def remove_stale(self) -> None:
        """Links of pools that an earlier run was connected to."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._repository):
                if is_uuid(name):
                    self.remove(name)


def replace_link(target: str, link: str) -> None:
    """Make ``link`` point to ``target``, at no time pointing nowhere."""
    temporary = os.path.join(os.path.dirname(link), f".{new_uuid()}")
    os.symlink(target, temporary)
    try:
        os.rename(temporary, link)
    except OSError:
        os.unlink(temporary)
        raise
