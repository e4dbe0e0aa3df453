# SPDX-License-Identifier: GPL-2.0-or-later
"""Files below a folder that another user may write, for root to read and replace.

On hosts that an engine deployed, the folder of certificates is the agent's. Whoever owns a folder can exchange what
lies in it between two looks at its path. So nothing here is looked up twice: each folder on the way is opened by its
name in the one before, links are not followed, and all that is checked or changed belongs to a descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator

from vdsm.common.errors import AgentError

MAX_BYTES = 1 << 20  # of a file of certificates

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# a FIFO must not hold us up
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NotAFolder(AgentError):
    path: str
    msg = "{self.path} is a symbolic link or no folder; links are not followed here"
    remedy = "Make it a folder that holds the files themselves, then do the same again"


class NotTaken(AgentError):
    path: str
    reason: str
    msg = "{self.path} is not taken: {self.reason}"
    remedy = "Put the file itself there, owned by root"


class TooLarge(NotTaken):
    remedy = "Leave out what is not needed: a certificate or key takes some 2 KiB"


@contextlib.contextmanager
def opened(root: str, path: str, *, make: int | None = None) -> Iterator[int]:
    """The folder ``path`` below ``root``, as a descriptor; ``make``: the mode of folders that are missing.

    ``root`` itself is believed: who calls has named it. Raises `NotAFolder`, `OSError`.
    """
    walked = root
    inner = os.open(root, _FOLDER)
    try:
        for name in filter(None, path.split("/")):
            if name == "..":
                raise NotAFolder(os.path.join(root, path))
            walked = os.path.join(walked, name)
            outer = inner
            inner = _enter(outer, name, walked, make)
            os.close(outer)
        yield inner
    finally:
        os.close(inner)


def read(root: str, path: str, owners: Collection[int], *, private: bool = False, limit: int = MAX_BYTES) -> bytes:
    """A regular file that belongs to one of ``owners``; ``private``: nobody else may read or write it.

    Raises `NotAFolder`, `NotTaken`, `OSError`.
    """
    whole = os.path.join(root, path)
    with opened(root, os.path.dirname(path)) as folder:
        try:
            fd = os.open(os.path.basename(path), _READ, dir_fd=folder)
        except OSError as e:
            if e.errno == errno.ELOOP:
                raise NotTaken(whole, "it is a symbolic link") from None
            raise OSError(e.errno, e.strerror, whole) from None
    try:
        return _taken(fd, whole, owners, private, limit)
    finally:
        os.close(fd)


def look(file: str, *, regular: bool) -> bytes:
    """A file by its path, links followed, for who only looks. ``regular``: nothing else, as that could hold us up.

    Raises `NotTaken`, `OSError`.
    """
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK if regular else 0))
    try:
        if regular and not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotTaken(file, "it is no regular file")
        return _bounded(fd, file, MAX_BYTES)
    except IsADirectoryError as e:
        raise OSError(e.errno, e.strerror, file) from None
    finally:
        os.close(fd)


def write(
    root: str, path: str, data: bytes, mode: int, owner: tuple[int, int] | None = None, *, folders: int = 0o755
) -> None:
    """Replace the file: the old or the new one is there, also after a power cut. ``owner``: the caller when None.

    Folders on the way are made with mode ``folders``. Raises `NotAFolder`, `OSError`.
    """
    name = os.path.basename(path)
    temporary = f".{name}.new"
    with opened(root, os.path.dirname(path), make=folders) as folder:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)  # of a command that was killed
            with open(os.open(temporary, _MAKE, 0o600, dir_fd=folder), "wb") as target:
                if owner is not None:
                    os.fchown(target.fileno(), *owner)
                os.fchmod(target.fileno(), mode)
                target.write(data)
                target.flush()
                os.fsync(target.fileno())
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException as e:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            if isinstance(e, OSError):
                raise OSError(e.errno, e.strerror, os.path.join(root, path)) from None
            raise
        os.fsync(folder)


def remove(root: str, path: str) -> None:
    """Remove the file, if it is there, for good. Raises `NotAFolder`, `OSError`."""
    with contextlib.suppress(FileNotFoundError), opened(root, os.path.dirname(path)) as folder:
        os.unlink(os.path.basename(path), dir_fd=folder)
        os.fsync(folder)


def _enter(outer: int, name: str, walked: str, make: int | None) -> int:
    try:
        if make is not None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, make, dir_fd=outer)
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=outer)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotAFolder(walked) from None
        raise OSError(e.errno, e.strerror, walked) from None


def _taken(fd: int, whole: str, owners: Collection[int], private: bool, limit: int) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise NotTaken(whole, "it is no regular file")
    if status.st_uid not in owners:
        expected = " or ".join(map(str, sorted(owners)))
        raise NotTaken(whole, f"it belongs to user {status.st_uid}, expected {expected}")
    if private and status.st_mode & 0o077:
        raise NotTaken(whole, "others may read or write it")
    return _bounded(fd, whole, limit)


def _bounded(fd: int, whole: str, limit: int) -> bytes:
    with open(fd, "rb", closefd=False) as source:
        data = source.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(whole, f"it has {max(os.fstat(fd).st_size, len(data))} bytes, more than {limit}")
    return data
