# SPDX-License-Identifier: GPL-2.0-or-later
"""What takes as long as the data is large: allocating and removing, told piece by piece.

``say(done, size)`` is called for each piece that is on the disk: silence then means a mount that hangs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from storage.file.iohelper.requests import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE = 128 << 20
CUT = 16 << 30
ZEROS = 1 << 20
NO_ALLOCATION = (errno.EOPNOTSUPP, errno.ENOSYS)


def remove_tree(path: str) -> None:
    discard(path, lambda _done, _size: None)


def discard(path: str, say: Callable[[int, int], None]) -> None:
    """A file, or a folder with all it holds, told entry by entry; a large file piece by piece when it has one link."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    _discard(path, found, say)
    sync_folder(os.path.dirname(path))


def _discard(path: str, found: os.stat_result, say: Callable[[int, int], None]) -> None:
    if stat.S_ISDIR(found.st_mode):
        for entry in list(os.scandir(path)):
            with contextlib.suppress(FileNotFoundError):
                _discard(entry.path, entry.stat(follow_symlinks=False), say)
        os.rmdir(path)
    else:
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_blocks * 512 > CUT:
            with contextlib.suppress(PermissionError):  # of somebody else, as people's files are: its folder is ours
                _cut_short(path, found.st_size, say)
        os.unlink(path)
    say(1, 0)


def _cut_short(path: str, size: int, say: Callable[[int, int], None]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while size > CUT:
            size -= CUT
            os.ftruncate(fd, size)
            os.fsync(fd)
            say(0, size)
    finally:
        os.close(fd)


def allocate(path: str, size: int, offset: int, say: Callable[[int, int], None]) -> None:
    """In pieces that are on the disk when they are told: silence then means a mount that hangs.

    Where the file system cannot reserve space, zeros are written, and only past the end of the file: what lies
    before it may be data.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if not _reserve(fd, offset, size, say):
            _lengthen(fd, max(offset, os.fstat(fd).st_size), size, say)
        os.fsync(fd)
    finally:
        os.close(fd)


def _reserve(fd: int, done: int, size: int, say: Callable[[int, int], None]) -> bool:
    """False when the file system cannot (NFS v3, ext2)."""
    while done < size:
        piece = min(PIECE, size - done)
        try:
            _fallocate(fd, done, piece)
        except OSError as e:
            if e.errno not in NO_ALLOCATION:
                raise
            return False
        done += piece
        say(done, size)
    return True


def _lengthen(fd: int, done: int, size: int, say: Callable[[int, int], None]) -> None:
    zeros = memoryview(bytes(ZEROS))
    while done < size:
        end = min(done + ZEROS * 8, size)
        while done < end:
            done += os.pwrite(fd, zeros[: min(ZEROS, end - done)], done)
        os.fdatasync(fd)
        say(done, size)


def _fallocate(fd: int, offset: int, size: int) -> None:
    # not posix_fallocate: the C library would write by itself where the server cannot allocate
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).fallocate64
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while call(fd, 0, offset, size) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
