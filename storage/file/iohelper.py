# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that touches a shared mount: ``python3 -I -S iohelper.py <framing.py>``.

It may hang with its mount and then be abandoned, so it holds no state: each request on stdin is
one operation on named paths, each answer on stdout its result or errno. Requests are served one
after the other; the end of stdin ends it. Standard library only, and little of it: there is one
such process per domain.

Paths are those of the caller, which runs as the same user: this process narrows nothing.

A process that was killed in the middle of a rename may still carry it out, or its server may, when a mount that
hung comes back. So a file is replaced from a temporary file of a name that nobody had before, and
whoever replaces it next first removes the temporary files of all others: a rename of one that is gone fails.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import importlib.util
import mmap
import os
import stat
import sys
import time
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE = 128 << 20
CUT = 16 << 30
ZEROS = 1 << 20
PAGE = 4096
NEW = ".new"
NO_ALLOCATION = (errno.EOPNOTSUPP, errno.ENOSYS)


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


def read_timed(path: str, size: int) -> float:
    started = time.monotonic()
    read_direct(path, 0, size)
    return time.monotonic() - started


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


def space(path: str) -> dict[str, int]:
    found = os.statvfs(path)
    return {"total": found.f_blocks * found.f_frsize, "free": found.f_bavail * found.f_frsize}


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


def sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
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


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _text(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


_QUICK = (read, read_direct, read_timed, exists, status, list_folder, list_matching, space, block_size)
_CHANGES = (write_atomic, write_direct, create, truncate, chmod, make_folder, make_folders, rename, relink, remove)
_FOLDERS = (remove_folder, remove_tree, sync_folder)

OPERATIONS: dict[str, Callable[..., Any]] = {call.__name__: call for call in (*_QUICK, *_CHANGES, *_FOLDERS)}

# these take a long time, and tell how far they are
LONG: dict[str, Callable[..., Any]] = {call.__name__: call for call in (allocate, discard)}


def serve(framing: Any, requests: BinaryIO, answers: BinaryIO) -> None:
    def send(answer: dict[str, Any]) -> None:
        answers.write(framing.encode_frame(answer))
        answers.flush()

    send({"ready": True})
    while True:
        try:
            request = framing.read_frame(requests)
        except EOFError:
            return
        op = request.pop("op")
        try:
            if op in LONG:
                result = LONG[op](**request, say=lambda done, size: send({"progress": [done, size]}))
            else:
                result = OPERATIONS[op](**request)
        except OSError as e:
            text = os.strerror(e.errno) if e.errno else str(e)
            send({"errno": e.errno or errno.EIO, "text": text, "path": e.filename or request.get("path", "")})
        else:
            send({"result": result})


def main() -> None:
    spec = importlib.util.spec_from_file_location("framing", sys.argv[1])
    assert spec is not None and spec.loader is not None
    framing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(framing)
    os.umask(0o022)
    serve(framing, sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
