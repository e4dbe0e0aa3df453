# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts of storage, by root.

A specification enters root's own records once, checked (`Mount.define`); from then on a mount is named by
its id, which is its folder's name under ``<repository>/mnt``. The records outlive this process and
boots; what is mounted is asked of the kernel, never remembered.

``mnt`` and what is mounted on in it are root's, so nobody can put something else there; whether they are is
looked at before each step. A mount that agent or QEMU can't use was never to be seen (`mount_points`). Changes of one
mount come one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import sys
from collections.abc import Sequence

import msgspec

from storage.ondisk.remote_path import mount_name
from vdsm.common import mountinfo
from vdsm.common.errors import CommandFailed, CommandHangs, DeadlineExceeded
from vdsm.common.owners import Lane
from vdsm.common.types import Json
from vdsm.root.server import (
    export_look,
    export_verdict,
    lost_locks,
    mount_points,
    mount_records,
    mount_secrets,
    mount_users,
    walk,
)
from vdsm.root.server.export_verdict import Look
from vdsm.root.server.mount_errors import MountAccessRefused, MountInUse, MountUnfit, MountUsed
from vdsm.root.server.mount_points import PLACE, Slot
from vdsm.root.server.mount_records import Record
from vdsm.root.server.mount_rules import block_types, check_options, check_spec, check_type
from vdsm.root.server.registry import Helper, root_verb

log = logging.getLogger("vdsm.root.mounts")

NFS_TYPES = ("nfs", "nfs4")
MOUNT_S = 90.0
CHECK_S = 30.0


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
    plain, secrets = mount_secrets.split(vfs_type, params.options)
    options = check_options(plain, files=mount_secrets.file_options(vfs_type))
    record = Record(spec, vfs_type, options, sorted(secrets))
    mount_id = mount_name(spec)
    async with _lane(helper, mount_id)("define"):
        known = mount_records.find(helper, mount_id)
        is_mounted = _mounted(mount_records.target(helper, mount_id))
        if known is not None and known != record and is_mounted:
            raise MountInUse(mount_id)
        if known != record:
            mount_records.write(helper, mount_id, record)
        if secrets and not is_mounted:
            helper.secrets[mount_id] = secrets
    return {"mount_id": mount_id}


@root_verb("Mount.mount", MountId)
async def mount(helper: Helper, params: MountId) -> Json:
    """Mount and check access for the agent and for QEMU. Nothing happens when it is mounted.

    ``notes``: what a person may want to know of the storage, though it is usable.
    """
    mount_id = params.mount_id
    target = mount_records.target(helper, mount_id)
    async with _lane(helper, mount_id)("mount"):
        record = mount_records.read(helper, mount_id)
        with mount_points.folder(helper) as mnt:
            if _mounted(target):
                _see_to_locks(record)
                return {"path": target, "mounted": False, "notes": []}
            secrets = helper.secrets.get(mount_id, {})
            if sorted(secrets) != record.secrets:
                raise mount_secrets.SecretNotKept(mount_id)
            walk.make_own_in(mnt, mount_id, target, 0o755)
            try:
                notes = await _mount(helper, record, secrets, mnt, mount_id, target)
            except BaseException:
                _remove_mount_point(mnt, mount_id)
                raise
            helper.secrets.pop(mount_id, None)
            _see_to_locks(record)
    return {"path": target, "mounted": True, "notes": notes}


@root_verb("Mount.unmount", MountId)
async def unmount(helper: Helper, params: MountId) -> Json:
    """Unmount and forget; nothing happens when it is unknown. Fails while it is in use."""
    return await _unmount(helper, params.mount_id, "plain")


@root_verb("Mount.unmount_forced", MountId)
async def unmount_forced(helper: Helper, params: MountId) -> Json:
    """For a server that is gone: open files are cut off, the mount point is freed at once. Never those of a VM."""
    target = mount_records.target(helper, params.mount_id)
    users = await asyncio.to_thread(mount_users.vms_on, target)
    if users:
        raise MountUsed(params.mount_id, users)
    return await _unmount(helper, params.mount_id, "forced")


@root_verb("Mount.list", Nothing)
async def list_mounts(helper: Helper, params: Nothing) -> Json:
    points = mountinfo.mount_points()
    return {
        mount_id: {**msgspec.to_builtins(record), "mounted": mount_records.target(helper, mount_id) in points}
        for mount_id, record in mount_records.all_of(helper).items()
    }


async def _mount(
    helper: Helper, record: Record, secrets: dict[str, str], mnt: int, mount_id: str, target: str
) -> list[str]:
    async with mount_points.slot(helper) as slot:
        options = mount_secrets.for_program(record.vfs_type, record.options, secrets, slot)
        argv = ["mount", "-t", record.vfs_type, "-o", ",".join(options), "--", record.spec, slot.place]
        await mount_points.run(argv, MOUNT_S, target, into=slot)
        notes = await _look_at_export(helper, slot, target) if record.vfs_type in NFS_TYPES else []
        await _check_access(helper, slot, target)
        point = os.open(mount_id, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=mnt)
        try:
            await mount_points.attach_to(slot, point, target)
        finally:
            os.close(point)
    return notes


async def _unmount(helper: Helper, mount_id: str, mode: str) -> Json:
    target = mount_records.target(helper, mount_id)
    async with _lane(helper, mount_id)("unmount"):
        if mount_records.find(helper, mount_id) is None:
            return {"unmounted": False}
        with mount_points.folder(helper) as mnt:
            was_mounted = _mounted(target)
            if was_mounted:
                await _detach(mnt, mount_id, mode, target)
            _remove_mount_point(mnt, mount_id)
        helper.secrets.pop(mount_id, None)
        mount_records.remove(helper, mount_id)
    return {"unmounted": was_mounted}


async def _detach(mnt: int, mount_id: str, mode: str, target: str) -> None:
    """What is cut off is gone at once. The kernel may wait on: the last mount of NFS 4 takes leave of its server."""
    try:
        await mount_points.detach(mnt, mount_id, mode, target)
    except DeadlineExceeded as e:
        if mode == "plain" or _mounted(target):
            raise
        log.warning("%s is cut off, its server was not told: %s", target, e)


async def _look_at_export(helper: Helper, slot: Slot, target: str) -> list[str]:
    """What the server lets the agent's user do. Raises what `export_verdict` says of it."""
    path = f"/proc/self/fd/{slot.fd}/{PLACE}"
    argv = ["setpriv", *_agent_ids(helper), "--", sys.executable, "-I", "-S", export_look.__file__, path]
    try:
        told = await mount_points.run(argv, CHECK_S, target, pass_fds=[slot.fd], into=slot)
    except CommandHangs:
        raise
    except DeadlineExceeded:
        raise MountUnfit(target, export_verdict.silence(CHECK_S)) from None
    try:
        found = msgspec.json.decode(told.out, type=Look)
    except msgspec.MsgspecError as e:
        raise MountUnfit(target, f"the look at it told nothing that can be read: {e}") from None
    if refused := export_verdict.refusal(found, target, helper.agent_uid, helper.agent_gid):
        raise refused
    is_squashed = not await _can([], slot, "w", target)
    return export_verdict.notes(found, helper.agent_uid, helper.agent_gid, root_is_squashed=is_squashed)


async def _check_access(helper: Helper, slot: Slot, target: str) -> None:
    if not await _can(_agent_ids(helper), slot, "rwx", target):
        raise MountAccessRefused(target, f"{helper.agent_uid}:{helper.agent_gid}", "read, write and enter")
    for name in mount_users.QEMU_USERS:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            ids = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--init-groups"]
            if not await _can(ids, slot, "rx", target):
                raise MountAccessRefused(target, name, "read and enter")


def _agent_ids(helper: Helper) -> list[str]:
    return ["--reuid", str(helper.agent_uid), "--regid", str(helper.agent_gid), "--clear-groups"]


async def _can(ids: Sequence[str], slot: Slot, rights: str, target: str) -> bool:
    # by the descriptor: the folder above the slot is closed for that user
    path = f"/proc/self/fd/{slot.fd}/{PLACE}"
    tests: list[str] = []
    for right in rights:
        tests += ["-a", f"-{right}", path]
    try:
        argv = ["setpriv", *ids, "--", "test", *tests[1:]]
        await mount_points.run(argv, CHECK_S, target, pass_fds=[slot.fd], into=slot)
    except CommandFailed as e:
        if e.code != 1 or e.stderr:  # setpriv itself failed
            raise
        return False
    return True


def _remove_mount_point(mnt: int, mount_id: str) -> None:
    with contextlib.suppress(OSError):  # it may hold something, or still be mounted below: then it stays
        os.rmdir(mount_id, dir_fd=mnt)


def _see_to_locks(record: Record) -> None:
    if record.vfs_type in NFS_TYPES:
        lost_locks.take_again()


def _mounted(target: str) -> bool:
    return target in mountinfo.mount_points()


def _lane(helper: Helper, mount_id: str) -> Lane:
    return helper.lane(f"mount {mount_id}")


def _kernel_types() -> set[str]:
    with open("/proc/filesystems", encoding="ascii") as f:
        return block_types(f.read())
