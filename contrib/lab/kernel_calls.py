# SPDX-License-Identifier: GPL-2.0-or-later
"""The few system calls that Python's library lacks: mount, umount, prctl; and the loop device's."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MNT_DETACH = 2
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
LOOP_CLR_FD, LOOP_GET_STATUS64, LOOP_CONFIGURE, LOOP_CTL_GET_FREE = 0x4C01, 0x4C05, 0x4C0A, 0x4C82
LO_FLAGS_AUTOCLEAR = 4

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fstype: str = "none", flags: int = 0, options: str = "") -> None:
    code = libc.mount(source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), options.encode())
    _check(code, f"mount -t {fstype} -o {options} {source} {target}")


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def make_read_only(target: str) -> None:
    """Turn an existing bind mount read-only."""
    mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def detach(target: str) -> None:
    _check(libc.umount2(target.encode(), MNT_DETACH), f"umount -l {target}")


def setns(namespace: int) -> None:
    """Move this thread into the network namespace that the descriptor stands for."""
    _check(libc.setns(namespace, CLONE_NEWNET), "setns")


def die_with_parent() -> None:
    _check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl(PR_SET_PDEATHSIG)")


def loops_backed_by(device: int, inode: int | None = None) -> list[str]:
    """Loop devices whose backing file lies on the file system with this st_dev, or is that one file on it."""
    found = []
    for entry in Path("/sys/block").glob("loop*"):
        if (entry / "loop").exists():
            path = f"/dev/{entry.name}"
            backing = _backing_file(path)
            if backing is not None and backing[0] == device and inode in (None, backing[1]):
                found.append(path)
    return found


@contextlib.contextmanager
def loop_held(file: Path) -> Iterator[str]:
    """The file's only loop device, for as long as the block lasts or somebody has it mounted."""
    with open(file, "r+b") as backing, _free_loop(backing.fileno()) as loop:
        yield str(loop.name)


def _free_loop(backing: int) -> BinaryIO:
    # struct loop_config: file, block size, loop_info64 (of which lo_flags lies at 52), reserved
    config = struct.pack("<II52xI176x64x", backing, 0, LO_FLAGS_AUTOCLEAR)
    with open("/dev/loop-control", "r+b", buffering=0) as control:
        while True:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            loop = open(f"/dev/loop{number}", "r+b", buffering=0)  # noqa: SIM115 - the caller's
            try:
                fcntl.ioctl(loop, LOOP_CONFIGURE, config)
            except OSError as error:
                loop.close()
                if error.errno != errno.EBUSY:  # somebody else was quicker
                    raise
            else:
                return loop


def detach_loop(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.ioctl(fd, LOOP_CLR_FD)
    except OSError:
        pass  # detached itself in the meantime
    finally:
        os.close(fd)


def _backing_file(path: str) -> tuple[int, int] | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(232))
    except OSError:
        return None
    finally:
        os.close(fd)
    # loop_info64.lo_device is in the kernel's "huge" encoding, as st_dev is; lo_inode follows
    device, inode = struct.unpack_from("<QQ", status)
    return int(device), int(inode)


def _check(code: int, what: str) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: {what}")
