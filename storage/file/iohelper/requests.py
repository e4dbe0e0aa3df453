# SPDX-License-Identifier: GPL-2.0-or-later
"""The small operations on files: each takes as long as the storage takes to answer a few requests.

A process that was killed in the middle of a rename may still carry it out, or its server may, when a mount that
hung comes back. So a file is replaced from a temporary file of a name that nobody had before, and
whoever replaces it next first removes the temporary files of all others: a rename of one that is gone fails.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import mmap
import os
import stat
import time
from typing import Any

from storage.file.iohelper import rights

PAGE = 4096
NEW = ".new"


def read(path: str, max_size: int) -> str:
    with open(path, "rb", buffering=0) as f:
        data = b""
        while len(data) <= max_size:
            part = f.read(max_size + 1 - len(data))
            if not part:
                return _text(data)
            data += part
    raise OSError(errno.EFBIG, f"longer than {max_size} bytes", path)


def read_direct(path: str, offset: int, size: int) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, max(size, PAGE)) as buffer, memoryview(buffer) as view:
            with view[:size] as part:
                count = os.preadv(fd, [part], offset)
            return _text(buffer[:count])
    finally:
        os.close(fd)


def read_timed(path: str, size: int) -> list[Any]:
    started = time.monotonic()
    content = read_direct(path, 0, size)
    return [time.monotonic() - started, content]


def exists(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def status(path: str) -> dict[str, Any]:
    found = os.lstat(path)
    return {
        "size": found.st_size,
        "allocated": found.st_blocks * 512,
        "mode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "links": found.st_nlink,
        "changed": found.st_ctime,
        "is_folder": stat.S_ISDIR(found.st_mode),
        "is_file": stat.S_ISREG(found.st_mode),
    }


def list_folder(path: str) -> list[str]:
    return sorted(os.listdir(path))


def list_matching(path: str, suffix: str) -> dict[str, list[str]]:
    result = {}
    for name in sorted(os.listdir(path)):
        try:
            names = os.listdir(os.path.join(path, name))
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed meanwhile, or a file
        result[name] = sorted(n for n in names if n.endswith(suffix))
    return result


def space(path: str, writes: list[str]) -> dict[str, Any]:
    rights.learn_anew(path)
    found = os.statvfs(path)
    refused = next(filter(None, map(rights.refused, writes)), "")
    return {"total": found.f_blocks * found.f_frsize, "free": found.f_bavail * found.f_frsize, "refused": refused}


def block_size(folder: str) -> int:
    # a file of our own name, made exclusively and never truncated: an existing file is not touched
    path = os.path.join(folder, f".probe-{_token()}")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)  # nothing is left, wherever this process dies
        with mmap.mmap(-1, PAGE) as buffer, memoryview(buffer) as view:
            for size in (1, 512, PAGE):
                try:
                    with view[:size] as part:
                        os.pwritev(fd, [part], 0)
                except OSError as e:
                    if e.errno != errno.EINVAL:
                        raise
                else:
                    return size
        raise OSError(errno.EINVAL, "no block size up to 4096 works", folder)
    finally:
        os.close(fd)


def write_atomic(path: str, data: str, mode: int) -> None:
    _remove_temporaries(path)
    new = f"{path}{NEW}.{_token()}"
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            os.fchmod(fd, mode)
            _write_all(fd, binascii.a2b_base64(data))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(new, path)
    except OSError:
        with contextlib.suppress(OSError):  # the error that led here is the one to tell
            os.unlink(new)
        raise
    sync_folder(os.path.dirname(path))


def _remove_temporaries(path: str) -> None:
    folder, name = os.path.split(path)
    for found in os.listdir(folder):
        if found == name + NEW or found.startswith(f"{name}{NEW}."):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, found))


def _token() -> str:
    return os.urandom(8).hex()


def write_direct(path: str, data: str, offset: int) -> None:
    content = binascii.a2b_base64(data)
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, max(len(content), PAGE)) as buffer:
            buffer[: len(content)] = content
            done = 0
            with memoryview(buffer) as view:
                while done < len(content):
                    with view[done : len(content)] as part:
                        done += os.pwritev(fd, [part], offset + done)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def create(path: str, size: int, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)  # servers apply a umask of their own
        if size:
            os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_folder(os.path.dirname(path))


def truncate(path: str, size: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def chmod(path: str, mode: int) -> None:
    os.chmod(path, mode)


def forget_refusals(path: str) -> None:
    rights.forget_refusals(path)


def make_folder(path: str, mode: int) -> None:
    os.mkdir(path, mode)
    os.chmod(path, mode)
    sync_folder(os.path.dirname(path))


def make_folders(path: str, mode: int) -> None:
    if os.path.isdir(path):
        return
    make_folders(os.path.dirname(path), mode)
    with contextlib.suppress(FileExistsError):
        make_folder(path, mode)


def rename(source: str, target: str) -> None:
    os.rename(source, target)
    folders = {os.path.dirname(source), os.path.dirname(target)}
    for folder in folders:
        sync_folder(folder)


def relink(source: str, target: str) -> None:
    _remove_temporaries(target)
    new = f"{target}{NEW}.{_token()}"
    os.link(source, new, follow_symlinks=False)
    os.rename(new, target)
    remove(new)  # rename does nothing when both are the same file
    sync_folder(os.path.dirname(target))


def remove(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    sync_folder(os.path.dirname(path))
    return True


def remove_folder(path: str) -> None:
    os.rmdir(path)
    sync_folder(os.path.dirname(path))


def sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _text(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
