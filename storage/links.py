# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbolic links under the repository: ``<pool>/<domain>`` and ``<pool>/mastersd`` (storage.md 2.2).

They lie on a local disk, so they are made directly. A link is replaced by rename: at no time does it
point nowhere. The repository is root's, since things are mounted below it: the pool's folder, in which the agent
makes its links, is made and removed by the root helper.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable

from vdsm.common.errors import AgentError
from vdsm.common.ids import is_uuid, new_uuid
from vdsm.root.client import Root

log = logging.getLogger("vdsm.storage.links")

MASTER = "mastersd"
FOLDER_S = 30.0


class PoolLinks:
    def __init__(self, repository: str, root: Root) -> None:
        self._repository = repository
        self._root = root

    async def make(self, pool_id: str, name: str, target: str) -> None:
        """Raises what the root helper does, and OSError."""
        link = os.path.join(self._repository, pool_id, name)
        try:
            _point(link, target)
        except FileNotFoundError:
            await self._root.call("Pool.make_folder", {"pool_id": pool_id}, timeout_s=FOLDER_S)
            _point(link, target)

    def keep_only(self, pool_id: str, names: Iterable[str]) -> None:
        """Remove links of domains that are active no more."""
        folder = os.path.join(self._repository, pool_id)
        with contextlib.suppress(FileNotFoundError):
            for name in set(os.listdir(folder)) - set(names) - {MASTER}:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))

    def targets(self, pool_id: str) -> dict[str, str]:
        """Where each domain's link leads; domains that have not answered since the pool was connected have none."""
        folder, found = os.path.join(self._repository, pool_id), {}
        with contextlib.suppress(FileNotFoundError):
            for name in filter(is_uuid, os.listdir(folder)):
                with contextlib.suppress(OSError):  # it goes just now
                    found[name] = os.readlink(os.path.join(folder, name))
        return found

    async def remove(self, pool_id: str) -> None:
        folder = os.path.join(self._repository, pool_id)
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return
        for name in names:
            with contextlib.suppress(OSError):  # none of ours: then the folder stays, too
                os.unlink(os.path.join(folder, name))
        try:
            await self._root.call("Pool.remove_folder", {"pool_id": pool_id}, timeout_s=FOLDER_S)
        except AgentError as e:
            log.warning("the folder of pool %s stays: %s", pool_id, e)

    async def remove_stale(self) -> None:
        """Links of pools that an earlier run was connected to."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._repository):
                if is_uuid(name):
                    await self.remove(name)


def _point(link: str, target: str) -> None:
    if not os.path.islink(link) or os.readlink(link) != target:
        replace_link(target, link)


def replace_link(target: str, link: str) -> None:
    """Make ``link`` point to ``target``, at no time pointing nowhere."""
    temporary = os.path.join(os.path.dirname(link), f".{new_uuid()}")
    os.symlink(target, temporary)
    try:
        os.rename(temporary, link)
    except OSError:
        os.unlink(temporary)
        raise
