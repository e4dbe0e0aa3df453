# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose the folders are, and the two places in root's folders where the agent wants something.

    root's      /run/vdsm-root, /var/lib/vdsm-root; /rhev/data-center and its mnt, where root mounts; /var/lib/vdsm,
                where the field's persisted networks lie
    the agent's /run/vdsm, /var/log/vdsm, folders of its own below /var/lib/vdsm, and a folder for each pool below
                /rhev/data-center, which holds its links to domains

A host that VDSM had gives the repository and ``mnt`` to vdsm: at the helper's start they become root's.
Links to local folders stand in ``mnt`` beside mounts. Root makes and removes them and never follows one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator

import msgspec

from storage.ondisk.remote_path import mount_name, normalise
from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.ids import is_uuid, new_uuid, shown
from vdsm.common.paths import Paths
from vdsm.common.types import Json
from vdsm.root.server import mount_points, walk
from vdsm.root.server.mount_rules import MAX_NAME
from vdsm.root.server.registry import Helper, root_verb

log = logging.getLogger("vdsm.root")

MAX_PATH = 1024


class PlaceTaken(AgentError):
    path: str
    msg = "{self.path} is there and is no link: something else is mounted there"
    remedy = "Disconnect that storage first"


class Pool(msgspec.Struct, forbid_unknown_fields=True):
    pool_id: str


class LocalFolder(msgspec.Struct, forbid_unknown_fields=True):
    folder: str


def prepare_own(paths: Paths) -> None:
    """The helper's folders. Raises `UnsafeFolder`, `OSError`: without them it can't be."""
    walk.make_own(paths.root_run, 0o755)
    walk.make_own(paths.root_state, 0o700)


def prepare(helper: Helper) -> None:
    """The others, so that the agent never needs root to start. One that can't be had is told, and the rest goes on."""
    paths, agent = helper.paths, (helper.agent_uid, helper.agent_gid)
    for path in (paths.repository, paths.mounts, paths.state):
        with _told(path):
            walk.make_own(path, 0o755)
    for path in (paths.run, paths.log, *paths.state_folders):
        with _told(path):
            walk.make_for(path, *agent)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, AgentError) as e:
        log.error("folder %s can't be prepared: %s", path, e)


@root_verb("Pool.make_folder", Pool)
async def make_pool_folder(helper: Helper, params: Pool) -> Json:
    """A folder for the agent's links to the pool's domains; nothing happens when it is there."""
    path = _pool_path(helper, params.pool_id)
    with walk.made(helper.paths.repository) as repository:
        walk.make_for_in(repository, params.pool_id, path, helper.agent_uid, helper.agent_gid)
    return None


@root_verb("Pool.remove_folder", Pool)
async def remove_pool_folder(helper: Helper, params: Pool) -> Json:
    """Remove it when it is empty; else it stays."""
    _pool_path(helper, params.pool_id)
    with contextlib.suppress(OSError), walk.trusted(helper.paths.repository) as repository:
        os.rmdir(params.pool_id, dir_fd=repository)
    return None


@root_verb("LocalFolder.link", LocalFolder)
async def link_folder(helper: Helper, params: LocalFolder) -> Json:
    """A link to a local folder, under the name that its domain's path has; the link's path."""
    folder, name = _named(params.folder)
    path = os.path.join(helper.paths.mounts, name)
    temporary = f".{new_uuid()}"
    with mount_points.folder(helper) as mnt:
        if not _is_link_or_absent(mnt, name):
            raise PlaceTaken(path)
        os.symlink(folder, temporary, dir_fd=mnt)
        try:
            os.rename(temporary, name, src_dir_fd=mnt, dst_dir_fd=mnt)
        except BaseException:
            os.unlink(temporary, dir_fd=mnt)
            raise
    return {"path": path}


@root_verb("LocalFolder.unlink", LocalFolder)
async def unlink_folder(helper: Helper, params: LocalFolder) -> Json:
    """Nothing happens when there is no link."""
    _, name = _named(params.folder)
    with mount_points.folder(helper) as mnt:
        if _is_link_or_absent(mnt, name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=mnt)
    return None


def _pool_path(helper: Helper, pool_id: str) -> str:
    if not is_uuid(pool_id):
        raise InvalidParameter("pool_id", shown(pool_id), "expected a UUID")
    return os.path.join(helper.paths.repository, pool_id)


def _named(folder: str) -> tuple[str, str]:
    named = normalise(folder)
    name = mount_name(named)
    bad = not named.startswith("/") or ".." in folder.split("/") or not named.isprintable() or len(named) > MAX_PATH
    if bad or len(name) > MAX_NAME or name in ("", "_", ".", ".."):
        raise InvalidParameter("folder", shown(folder), "expected a local folder's absolute path")
    return named, name


def _is_link_or_absent(mnt: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=mnt, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True
