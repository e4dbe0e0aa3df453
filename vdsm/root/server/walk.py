# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders that root may work in: reached step by step, by descriptors, without links.

Whoever can rename a folder on the way decides where root's next step lands. So a path is never looked up as a whole:
each folder is opened by its name in the one before, a link is not followed, and each must be root's and writable by
nobody else (but for sticky folders such as /tmp, where root's entries are safe). What is then made, mounted on or
given away belongs to the descriptor, so that nobody can put something else in its place meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator

from vdsm.common.errors import AgentError

log = logging.getLogger("vdsm.root")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsafeFolder(AgentError):
    path: str
    reason: str
    msg = "Root does nothing in {self.path}: {self.reason}"
    remedy = "Make it a folder of root's that nobody else may write (a bind mount, where it shall lie elsewhere)"


@contextlib.contextmanager
def trusted(path: str) -> Iterator[int]:
    """The folder's descriptor; all on the way is root's. Raises `UnsafeFolder`, FileNotFoundError."""
    with contextlib.ExitStack() as opened:
        walked = "/"
        inner = os.open("/", _FOLDER)
        opened.callback(os.close, inner)
        _check(inner, walked)
        for name in filter(None, path.split("/")):
            walked = os.path.join(walked, name)
            inner = _enter(inner, name, walked)
            opened.callback(os.close, inner)
            _check(inner, walked)
        yield inner


def make_own(path: str, mode: int) -> None:
    """A folder that is root's from now on, whoever had it before. Folders above it that are missing are made, too."""
    with made(os.path.dirname(path)) as parent:
        make_own_in(parent, os.path.basename(path), path, mode)


def make_own_in(parent: int, name: str, path: str, mode: int) -> None:
    """``parent``: a trusted folder. A link that somebody else than root made in it is removed."""
    _make(parent, name, path, mode)
    with _opened(parent, name, path) as fd:
        if os.fstat(fd).st_uid != os.geteuid():
            log.warning("%s belonged to user %d: it is root's now", path, os.fstat(fd).st_uid)
        os.fchown(fd, os.geteuid(), os.getegid())
        os.fchmod(fd, mode)
        # its owner could still rename it before the chown, not any more: what has the name now keeps it
        there, ours = os.stat(name, dir_fd=parent, follow_symlinks=False), os.fstat(fd)
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise UnsafeFolder(path, "it was replaced meanwhile")


def make_for(path: str, uid: int, gid: int) -> None:
    """A folder that belongs to another user, in one of root's. See `make_for_in`."""
    with made(os.path.dirname(path)) as parent:
        make_for_in(parent, os.path.basename(path), path, uid, gid)


def make_for_in(parent: int, name: str, path: str, uid: int, gid: int) -> None:
    """Only what is made here is given away, under a name of its own; what is there must be the user's already."""
    owner = _owner(parent, name, path)
    if owner not in (None, uid):
        raise UnsafeFolder(path, f"it is there and belongs to user {owner}, expected {uid}")
    if owner == uid:
        return
    temporary = f".{name}.new"
    # one that is the user's was given away by a helper that was killed then: it may hold something by now
    if _owner(parent, temporary, path) != uid:
        _give(parent, temporary, path, uid, gid)
    os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)


def _owner(parent: int, name: str, path: str) -> int | None:
    """Of a folder; None: there is nothing."""
    _remove_link(parent, name, path)
    try:
        with _opened(parent, name, path) as fd:
            return os.fstat(fd).st_uid
    except FileNotFoundError:
        return None


def _give(parent: int, temporary: str, path: str, uid: int, gid: int) -> None:
    try:
        os.rmdir(temporary, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError as e:
        raise UnsafeFolder(path, f"{temporary} beside it is in the way: {e.strerror}") from e
    os.mkdir(temporary, 0o755, dir_fd=parent)
    with _opened(parent, temporary, path) as fd:
        os.fchown(fd, uid, gid)


@contextlib.contextmanager
def made(path: str) -> Iterator[int]:
    """As `trusted`; root's own folder, made where it is missing."""
    if not os.path.lexists(path):
        make_own(path, 0o755)
    with trusted(path) as fd:
        yield fd


def _make(parent: int, name: str, path: str, mode: int) -> None:
    _remove_link(parent, name, path)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)


def _remove_link(parent: int, name: str, path: str) -> None:
    """One that somebody else than root made, when the folder around it was not root's yet."""
    with contextlib.suppress(FileNotFoundError):
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(info.st_mode) and info.st_uid != os.geteuid():
            os.unlink(name, dir_fd=parent)
            log.warning("%s was a link of user %d: it is removed", path, info.st_uid)


@contextlib.contextmanager
def _opened(parent: int, name: str, path: str) -> Iterator[int]:
    fd = _enter(parent, name, path)
    try:
        yield fd
    finally:
        os.close(fd)


def _enter(outer: int, name: str, walked: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=outer)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENOTDIR):
            raise UnsafeFolder(walked, "it is a symbolic link or no folder") from None
        raise OSError(e.errno, e.strerror, walked) from None


def _check(fd: int, walked: str) -> None:
    info = os.fstat(fd)
    if info.st_uid not in (0, os.geteuid()):
        raise UnsafeFolder(walked, f"it belongs to user {info.st_uid}")
    if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
        raise UnsafeFolder(walked, f"others than root may write in it (mode {stat.S_IMODE(info.st_mode):04o})")
