# SPDX-License-Identifier: GPL-2.0-or-later
"""What a look at an export (`export_look`) means, and what the server's administrator has to change. Pure."""

from __future__ import annotations

import errno
import os

import msgspec

from vdsm.common.errors import AgentError
from vdsm.root.server.mount_errors import ExportAccessRefused, MountNoDirectIo, MountUnfit

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Look(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See `export_look`: the program runs with the rights of the agent's user, so what it prints is checked."""

    owner: tuple[int, int, int] | None
    made: tuple[int, int] | None
    failed: tuple[str, int] | None


def refusal(found: Look, path: str, uid: int, gid: int) -> AgentError | None:
    """Why the export is not usable. A full one is: what is on it can be used and removed."""
    if found.failed is None or _is_full(found):
        return None
    step, number = found.failed
    user = f"{uid}:{gid}"
    if number == errno.EROFS:
        todo = "its exports line needs rw for this host, or the file system there was made read-only by an error"
        return ExportAccessRefused(path, user, "write", todo)
    if number in (errno.EACCES, errno.EPERM) and step in ("enter", "create", "direct"):
        return ExportAccessRefused(path, user, "enter" if step == "enter" else "write", _owned(found, uid, gid))
    if step in ("direct", "write") and number == errno.EINVAL:
        return MountNoDirectIo(path)
    return MountUnfit(path, _reason(step, number))


def silence(seconds: float) -> str:
    """The server took the mount, and gave no end to what was tried on it."""
    return (
        f"a file was made, locked and written there, and that did not end within {seconds:.0f} s; "
        "for up to 90 s after its start a server of version 4 lets nobody lock (its grace time): try again then"
    )


def notes(found: Look, uid: int, gid: int, *, root_is_squashed: bool) -> list[str]:
    """What is no reason to refuse it, and good to know."""
    said = []
    if _is_full(found):
        said.append("it is full")
    if found.made is not None and found.made != (uid, gid):
        said.append(f"files of user {uid}:{gid} belong to {found.made[0]}:{found.made[1]} there: the server maps users")
    is_for_all = found.owner is not None and found.owner[2] & 0o002
    if not root_is_squashed and not is_for_all:
        said.append("root of this host may change all files there (no_root_squash)")
    return said


def _is_full(found: Look) -> bool:
    return found.failed is not None and found.failed[0] in ("create", "write") and found.failed[1] in _FULL


def _owned(found: Look, uid: int, gid: int) -> str:
    if found.owner is None:
        return f"chown {uid}:{gid} and chmod 0755 the exported folder, and let others enter what is above it"
    owner, group, mode = found.owner
    seen = f"it belongs to {owner}:{group} with mode {mode:04o}"
    if owner == uid and mode & 0o700 == 0o700:
        squash = f"no all_squash in its exports, or anonuid={uid},anongid={gid}"
        return f"{squash} ({seen}, so the server takes user {uid} for another)"
    return f"chown {uid}:{gid} and chmod 0755 the exported folder ({seen})"


def _reason(step: str, number: int) -> str:
    said = os.strerror(number) if number else "what was read is not what was written"
    if number == errno.ESTALE:
        return f"{said}: the exported folder was replaced; on the server: exportfs -ra"
    if step == "lock":
        return (
            f"its locks are refused ({said}): start lockd and statd on the server and open their ports,"
            " or connect without option 'lock'"
        )
    return f"step {step!r} of a look at it failed: {said}"
