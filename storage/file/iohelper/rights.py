# SPDX-License-Identifier: GPL-2.0-or-later
"""What the server lets us do, asked of the server.

The kernel's client of NFS answers from memory. The attributes of a file or folder are up to a minute old. Who may open
a file of version 3 it was told once, and keeps for as long as it sees no other attributes: an export that turns
read-only, or takes our user for another, is not seen by opening, and a refusal outlives its cause for ever, for
us, the lock daemon and QEMU (seen with Linux 6.1).

What always goes to the server is to set a file's mode. It is set to what it is. When the server takes it, the client
forgets all that it knew about who may open the file. Only the owner can ask so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

REFUSALS = (errno.EROFS, errno.EACCES, errno.EPERM)

AT_FDCWD = -100
AT_STATX_FORCE_SYNC = 0x2000
STATX_BASIC_STATS = 0x7FF
STATX_BYTES = 256
# in struct statx: stx_uid, stx_gid, stx_mode
_UID_TO_MODE = struct.Struct("=IIH")
_UID_AT = 20


class Found(NamedTuple):
    uid: int
    mode: int


def learn_anew(folder: str) -> None:
    """The attributes of all folders on the way, the first one's first: who enters is let in by what they say now."""
    if folder != os.path.dirname(folder):
        learn_anew(os.path.dirname(folder))
    _status(folder)


def ask_anew(path: str) -> None:
    """Before a refusal is told. Raises `OSError` where the server refuses."""
    learn_anew(os.path.dirname(path))
    if os.path.isfile(path):
        forget_refusals(path)


def refused(path: str) -> str:
    """Why the server does not let us write the file; empty when it does, or says nothing about that."""
    try:
        if _remembers(path):
            _ask(path)
        os.close(os.open(path, os.O_WRONLY))
    except OSError as e:
        if e.errno in REFUSALS:
            return os.strerror(e.errno)
    return ""


def forget_refusals(path: str) -> None:
    """Nothing happens to a file of which the client remembers none. Raises `OSError` of a server that refuses us."""
    if _remembers(path):
        _ask(path)


def _ask(path: str) -> None:
    """Raises `OSError`: the refusal. Of somebody else's file nothing is asked but whether anything can be written."""
    found = _status(path)
    try:
        os.chmod(path, found.mode)
    except OSError as e:
        if e.errno == errno.EROFS or found.uid == os.geteuid():
            raise


def _remembers(path: str) -> bool:
    """Whether it lies on NFS of version 2 or 3; version 4 has a type of its own, and asks at each opening."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            mount, _, kind = line.partition(" - ")
            if mount.split()[2] == number:
                return kind.startswith("nfs ")
    return False


def _status(path: str) -> Found:
    """As the server says, not the client's memory."""
    call = ctypes.CDLL(None, use_errno=True).statx
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p]
    answer = ctypes.create_string_buffer(STATX_BYTES)
    if call(AT_FDCWD, os.fsencode(path), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, answer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    uid, _, mode = _UID_TO_MODE.unpack_from(answer, _UID_AT)
    return Found(uid, mode & 0o7777)
