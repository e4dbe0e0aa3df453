# SPDX-License-Identifier: GPL-2.0-or-later
"""May another user enter and read a local folder? By modes and POSIX ACLs, as the kernel decides.

QEMU runs as a user of its own: a folder that it can't enter makes a domain whose VMs never start, so
it is refused when it is connected. Mounts are tried by the root helper, as that user; here nothing needs root.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

QEMU_USERS = ("qemu", "libvirt-qemu")

READ, ENTER = 4, 1

_ACL = "system.posix_acl_access"
_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_USER, _GROUP_OWNER, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10


@dataclass(frozen=True)
class Identity:
    name: str
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True)
class Rights:
    """What the kernel looks at. ``acl`` holds (tag, rights, id); empty when the mode says all."""

    mode: int
    uid: int
    gid: int
    acl: tuple[tuple[int, int, int], ...] = ()


def qemu_identities() -> tuple[Identity, ...]:
    """Users that QEMU may run as on this host."""
    return tuple(_identities())


def refused_at(folder: str, who: Identity) -> tuple[str, str] | None:
    """Where ``who`` is kept from reading and entering ``folder``, and what is missing there. Raises `OSError`."""
    path = os.path.realpath(folder)
    above = path
    while above != "/":
        above = os.path.dirname(above)
        if not may(who, _rights(above), ENTER):
            return above, "enter"
    return None if may(who, _rights(path), READ | ENTER) else (path, "read and enter")


def may(who: Identity, rights: Rights, wanted: int) -> bool:
    if who.uid == 0:
        return True
    if who.uid == rights.uid:
        return _has(rights.mode >> 6, wanted)
    if not rights.acl:
        return _has(rights.mode >> 3 if rights.gid in who.groups else rights.mode, wanted)
    mask = next((allowed for tag, allowed, _ in rights.acl if tag == _MASK), 7)
    for tag, allowed, number in rights.acl:
        if tag == _USER and number == who.uid:
            return _has(allowed & mask, wanted)
    groups = [
        allowed & mask
        for tag, allowed, number in rights.acl
        if (tag == _GROUP_OWNER and rights.gid in who.groups) or (tag == _GROUP and number in who.groups)
    ]
    if groups:
        return any(_has(allowed, wanted) for allowed in groups)
    return _has(rights.mode, wanted)


def decode_acl(data: bytes) -> tuple[tuple[int, int, int], ...]:
    """Entries of the kernel's attribute; none when it is of a version that is not known."""
    if len(data) < _VERSION.size or _VERSION.unpack_from(data)[0] != 2:
        return ()
    body = data[_VERSION.size :]
    return tuple(_ENTRY.iter_unpack(body[: len(body) // _ENTRY.size * _ENTRY.size]))


def _rights(path: str) -> Rights:
    found = os.stat(path)
    try:
        acl = decode_acl(os.getxattr(path, _ACL))
    except OSError as e:
        if e.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        acl = ()
    return Rights(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, acl)


def _has(allowed: int, wanted: int) -> bool:
    return allowed & wanted == wanted


def _identities() -> Iterator[Identity]:
    for name in QEMU_USERS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        yield Identity(name, user.pw_uid, frozenset(os.getgrouplist(name, user.pw_gid)))
