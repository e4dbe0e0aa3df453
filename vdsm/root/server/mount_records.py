# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be mounted, on record: one file for each mount, written by root, in a folder that only root can enter.

Secrets are not in it, only the names of the options that they belong to. They are kept in memory from `define` until
the mount is made, and reach the program that needs them in a file of the mount's slot.
"""

from __future__ import annotations

import logging
import os

import msgspec

from vdsm.common.atomic import remove_durably, write_atomic
from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.ids import shown
from vdsm.root.server import walk
from vdsm.root.server.mount_rules import MAX_NAME, is_mount_id
from vdsm.root.server.registry import Helper

log = logging.getLogger("vdsm.root.mounts")


class UnknownMount(AgentError):
    mount_id: str
    msg = "Mount {self.mount_id!r} is not defined"
    remedy = "Connect the storage server first"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``secrets``: names of options whose values are not here."""

    spec: str
    vfs_type: str
    options: list[str]
    secrets: list[str] = []


def target(helper: Helper, mount_id: str) -> str:
    """Path of the mount's folder. Raises `InvalidParameter`."""
    if not is_mount_id(mount_id):
        raise InvalidParameter("mount_id", shown(mount_id), "expected the name of a mount's folder")
    return os.path.join(helper.paths.mounts, mount_id)


def read(helper: Helper, mount_id: str) -> Record:
    """Raises `UnknownMount`, `InvalidParameter`."""
    target(helper, mount_id)
    record = find(helper, mount_id)
    if record is None:
        raise UnknownMount(mount_id[:MAX_NAME])
    return record


def find(helper: Helper, mount_id: str) -> Record | None:
    """None for one that can't be read, too: it is told, and written anew when it is defined again."""
    try:
        with open(_path(helper, mount_id), "rb") as f:
            return msgspec.json.decode(f.read(), type=Record)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as e:
        log.error("the record of mount %s can't be read: %s", mount_id, e)
        return None


def all_of(helper: Helper) -> dict[str, Record]:
    try:
        names = os.listdir(_folder(helper))
    except FileNotFoundError:
        return {}
    ids = [name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")]
    found = {mount_id: find(helper, mount_id) for mount_id in sorted(ids)}
    return {mount_id: record for mount_id, record in found.items() if record is not None}


def write(helper: Helper, mount_id: str, record: Record) -> None:
    walk.make_own(_folder(helper), 0o700)
    write_atomic(_path(helper, mount_id), msgspec.json.encode(record), mode=0o600)


def remove(helper: Helper, mount_id: str) -> None:
    remove_durably(_path(helper, mount_id))


def _folder(helper: Helper) -> str:
    return os.path.join(helper.paths.root_state, "mounts")


def _path(helper: Helper, mount_id: str) -> str:
    return os.path.join(_folder(helper), f"{mount_id}.json")
