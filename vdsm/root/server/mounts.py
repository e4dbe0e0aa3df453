# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts of storage, by root.

A specification enters root's own records once, checked (`Mount.define`); from then on a mount is named by
its id, which is its folder's name under ``<repository>/mnt``. The records outlive this process and
boots; what is mounted is asked of the kernel, never remembered.

The folder above is the agent's, so its entries are not trusted: the mount point must be a real
folder, and after mounting the kernel must show the mount exactly there, or it is undone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import re
import stat
from collections.abc import Sequence
from typing import Any

import msgspec

from storage.ondisk.remote_path import mount_name
from vdsm.common import commands
from vdsm.common.atomic import remove_durably, write_atomic
from vdsm.common.errors import AgentError, CommandFailed, DeadlineExceeded, InvalidParameter
from vdsm.common.ids import shown
from vdsm.common.types import Json
from vdsm.root.server.mount_rules import MAX_NAME, block_types, check_options, check_spec, check_type
from vdsm.root.server.registry import Helper, root_verb

log = logging.getLogger("vdsm.root.mounts")

MOUNT_S = 90.0
UMOUNT_S = 60.0
CHECK_S = 30.0
HANGS_S = 5.0

QEMU_USERS = ("qemu", "libvirt-qemu")

_ID = re.compile(r"[A-Za-z0-9_.:@%+=~\[\],-]+\Z")
_ESCAPE = re.compile(r"\\([0-7]{3})")


class UnknownMount(AgentError):
    mount_id: str
    msg = "Mount {self.mount_id!r} is not defined"
    remedy = "Connect the storage server first"


class MountInUse(AgentError):
    mount_id: str
    msg = "Mount {self.mount_id!r} is mounted with another type or other options"
    remedy = "Disconnect the storage server, then connect it again"


class UnsafeMountPoint(AgentError):
    path: str
    reason: str
    msg = "Nothing is mounted at {self.path}: {self.reason}"


class MountAccessRefused(AgentError):
    path: str
    user: str
    needs: str
    msg = "Storage mounted at {self.path} is not usable: user {self.user} cannot {self.needs} it"
    remedy = "Give the folder on the storage to owner and group 36:36 with all rights for both"


class MountSpec(msgspec.Struct, forbid_unknown_fields=True):
    spec: str
    vfs_type: str
    options: str = ""


class MountId(msgspec.Struct, forbid_unknown_fields=True):
    mount_id: str


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


@root_verb("Mount.define", MountSpec)
async def define(helper: Helper, params: MountSpec) -> Json:
    """Check and record what may be mounted. The answer's ``mount_id`` names it in all other verbs."""
    spec = check_spec(params.spec)
    vfs_type = check_type(params.vfs_type, _kernel_types())
    options = check_options(params.options)
    record = {"spec": spec, "vfs_type": vfs_type, "options": options}
    mount_id = mount_name(spec)
    known = _records(helper).get(mount_id)
    if known is not None and known != record and _mounted(_target(helper, mount_id)):
        raise MountInUse(mount_id)
    if known != record:
        os.makedirs(_folder(helper), mode=0o700, exist_ok=True)
        write_atomic(_record_path(helper, mount_id), json.dumps(record).encode(), mode=0o600)
    return {"mount_id": mount_id}


@root_verb("Mount.mount", MountId)
async def mount(helper: Helper, params: MountId) -> Json:
    """Mount and check access for the agent and for QEMU. Nothing happens when it is mounted."""
    record = _record(helper, params.mount_id)
    target = _target(helper, params.mount_id)
    if _mounted(target):
        return {"path": target, "mounted": False}
    _make_mount_point(helper, target)
    argv = ["mount", "-t", record["vfs_type"], "-o", ",".join(record["options"]), "--", record["spec"], target]
    await _run(argv, MOUNT_S)
    try:
        if not _mounted(target):
            raise UnsafeMountPoint(target, "it was replaced while the mount was made")
        await _check_access(helper, target)
    except BaseException:
        await asyncio.shield(_run(["umount", "--", target], UMOUNT_S))
        _remove_mount_point(target)
        raise
    return {"path": target, "mounted": True}


@root_verb("Mount.unmount", MountId)
async def unmount(helper: Helper, params: MountId) -> Json:
    """Unmount and forget; nothing happens when it is unknown. Fails while it is in use."""
    return await _unmount(helper, params.mount_id, ["umount"])


@root_verb("Mount.unmount_forced", MountId)
async def unmount_forced(helper: Helper, params: MountId) -> Json:
    """For a server that is gone: open files are cut off, the mount point is freed at once."""
    return await _unmount(helper, params.mount_id, ["umount", "--force", "--lazy"])


@root_verb("Mount.list", Nothing)
async def list_mounts(helper: Helper, params: Nothing) -> Json:
    points = _mount_points()
    return {
        mount_id: {**record, "mounted": _target(helper, mount_id) in points}
        for mount_id, record in sorted(_records(helper).items())
    }


async def _unmount(helper: Helper, mount_id: str, argv: Sequence[str]) -> Json:
    target = _target(helper, mount_id)
    if mount_id not in _records(helper):
        return {"unmounted": False}
    was_mounted = _mounted(target)
    if was_mounted:
        await _run([*argv, "--", target], UMOUNT_S)
    _remove_mount_point(target)
    remove_durably(_record_path(helper, mount_id))
    return {"unmounted": was_mounted}


async def _run(argv: Sequence[str], timeout_s: float) -> None:
    """A command that may hang in the kernel: killed after its time, and not waited for much longer."""
    task = asyncio.ensure_future(commands.run(argv, timeout_s=timeout_s))
    done, _ = await asyncio.wait([task], timeout=timeout_s + HANGS_S)
    if not done:
        log.error("%s cannot be killed: it waits in the kernel", argv[0])
        raise DeadlineExceeded(" ".join(argv), timeout_s)
    task.result()


async def _check_access(helper: Helper, path: str) -> None:
    ids = ["--reuid", str(helper.agent_uid), "--regid", str(helper.agent_gid), "--clear-groups"]
    if not await _can(ids, path, "rwx"):
        raise MountAccessRefused(path, f"{helper.agent_uid}:{helper.agent_gid}", "read, write and enter")
    for name in QEMU_USERS:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            ids = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--init-groups"]
            if not await _can(ids, path, "rx"):
                raise MountAccessRefused(path, name, "read and enter")


async def _can(ids: Sequence[str], path: str, rights: str) -> bool:
    tests: list[str] = []
    for right in rights:
        tests += ["-a", f"-{right}", path]
    try:
        await commands.run(["setpriv", *ids, "--", "test", *tests[1:]], timeout_s=CHECK_S)
    except CommandFailed as e:
        if e.code != 1 or e.stderr:  # setpriv itself failed
            raise
        return False
    return True


def _make_mount_point(helper: Helper, target: str) -> None:
    parent = os.path.dirname(target)
    for folder in (os.path.dirname(helper.paths.repository), helper.paths.repository, parent):
        if stat.S_ISLNK(os.lstat(folder).st_mode):
            raise UnsafeMountPoint(target, f"{folder} is a symbolic link")
    with contextlib.suppress(FileExistsError):
        os.mkdir(target, 0o755)
        os.chown(target, helper.agent_uid, helper.agent_gid, follow_symlinks=False)
    if not stat.S_ISDIR(os.lstat(target).st_mode):
        raise UnsafeMountPoint(target, "it is no folder")


def _remove_mount_point(target: str) -> None:
    with contextlib.suppress(OSError):  # it may hold something, or still be mounted below: then it stays
        os.rmdir(target)


def _target(helper: Helper, mount_id: str) -> str:
    if len(mount_id) > MAX_NAME or not _ID.match(mount_id) or mount_id in (".", ".."):
        raise InvalidParameter("mount_id", shown(mount_id), "expected the name of a mount's folder")
    return os.path.join(helper.paths.mounts, mount_id)


def _mounted(target: str) -> bool:
    return target in _mount_points()


def _mount_points() -> set[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        return {_ESCAPE.sub(lambda m: chr(int(m[1], 8)), line.split(" ")[4]) for line in f}


def _kernel_types() -> set[str]:
    with open("/proc/filesystems", encoding="ascii") as f:
        return block_types(f.read())


def _folder(helper: Helper) -> str:
    return os.path.join(helper.paths.root_state, "mounts")


def _record_path(helper: Helper, mount_id: str) -> str:
    return os.path.join(_folder(helper), f"{mount_id}.json")


def _record(helper: Helper, mount_id: str) -> dict[str, Any]:
    _target(helper, mount_id)
    record = _records(helper).get(mount_id)
    if record is None:
        raise UnknownMount(mount_id[:MAX_NAME])
    return record


def _records(helper: Helper) -> dict[str, dict[str, Any]]:
    try:
        names = os.listdir(_folder(helper))
    except FileNotFoundError:
        return {}
    found = {}
    for name in names:
        if name.endswith(".json") and not name.startswith("."):
            with open(os.path.join(_folder(helper), name), encoding="utf-8") as f:
                found[name.removesuffix(".json")] = json.load(f)
    return found
