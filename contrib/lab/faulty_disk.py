# SPDX-License-Identifier: GPL-2.0-or-later
"""A file whose reads and writes fail or hang on command: a disk gone bad, for one file and for whoever opens it.

``python -m contrib.lab.faulty_disk FILE`` covers the file with itself, until its input ends. Each line of its input is
how the file behaves from then on, and is answered with itself once it does:

    well      as the file below it
    ENOSPC    no write finds room; reads are well
    EIO       neither reads nor writes succeed
    hang      nothing is answered, and who waits can't be killed; the next word answers what was held back.
              But its attributes are: `mount -o loop` asks each loop device of the machine for those of its file

A file system in user space (the kernel's FUSE protocol, /dev/fuse) whose root is that one file. When it is killed, the
kernel fails all that waits.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import struct
import sys
from collections.abc import Callable

from contrib.lab import kernel_calls

GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT, ACCESS = (
    3,
    4,
    14,
    15,
    16,
    17,
    18,
    20,
    25,
    26,
    34,
)
FORGET, INTERRUPT, DESTROY, BATCH_FORGET = 2, 36, 38, 42
UNANSWERED = (FORGET, INTERRUPT, BATCH_FORGET)
VERSION, MAX_WRITE = (7, 31), 128 << 10
ASYNC_READ, BIG_WRITES, ASYNC_DIO = 1, 1 << 5, 1 << 15
DIRECT_IO = 1
SET_MODE, SET_UID, SET_GID, SET_SIZE = 1, 2, 4, 8

FAULTS: dict[str, dict[int, int]] = {
    "well": {},
    "ENOSPC": {WRITE: errno.ENOSPC},
    "EIO": {WRITE: errno.EIO, READ: errno.EIO, FSYNC: errno.EIO},
    "hang": {},
}


class Failed(Exception):
    def __init__(self, number: int) -> None:
        self.number = number


class FaultyDisk:
    def __init__(self, backing: int, device: int) -> None:
        """``backing``: the file below, open; ``device``: the mount's /dev/fuse."""
        self._backing = backing
        self._device = device
        self._word = "well"
        self._held: list[bytes] = []
        self._verbs: dict[int, Callable[[bytes], bytes]] = {
            INIT: self._init,
            GETATTR: lambda _: self._attributes(),
            SETATTR: self._set_attributes,
            OPEN: lambda _: struct.pack("<QII", 1, DIRECT_IO, 0),
            READ: self._read,
            WRITE: self._write,
            STATFS: lambda _: struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 19, 1 << 19, 1, 1, 4096, 255, 4096, 0),
            FSYNC: self._sync,
            FLUSH: lambda _: b"",
            RELEASE: lambda _: b"",
            ACCESS: lambda _: b"",
            DESTROY: lambda _: b"",
        }

    def behave(self, word: str) -> None:
        self._word = word
        held, self._held = self._held, []
        for request in held:
            self.serve(request)

    def serve(self, request: bytes) -> None:
        _, opcode, unique = struct.unpack_from("<IIQ", request)
        if opcode in UNANSWERED:
            return
        if self._word == "hang" and opcode != GETATTR:
            self._held.append(request)
            return
        try:
            number, answer = 0, self._answer(opcode, request[40:])
        except Failed as e:
            number, answer = e.number, b""
        except OSError as e:
            number, answer = e.errno or errno.EIO, b""
        os.write(self._device, struct.pack("<IiQ", 16 + len(answer), -number, unique) + answer)

    def _answer(self, opcode: int, body: bytes) -> bytes:
        if opcode in FAULTS[self._word]:
            raise Failed(FAULTS[self._word][opcode])
        if opcode not in self._verbs:
            raise Failed(errno.ENOSYS)
        return self._verbs[opcode](body)

    def _init(self, body: bytes) -> bytes:
        _, _, readahead, flags = struct.unpack_from("<IIII", body)
        ours = flags & (ASYNC_READ | BIG_WRITES | ASYNC_DIO)
        return struct.pack("<IIIIHHII36x", *VERSION, readahead, ours, 16, 12, MAX_WRITE, 1)

    def _attributes(self) -> bytes:
        found = os.fstat(self._backing)
        attributes = struct.pack(
            "<QQQ24x12xIIIIIII",
            1,
            found.st_size,
            found.st_blocks,
            found.st_mode,
            1,
            found.st_uid,
            found.st_gid,
            0,
            4096,
            0,
        )
        return bytes(16) + attributes

    def _set_attributes(self, body: bytes) -> bytes:
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        mode, _, uid, gid = struct.unpack_from("<IIII", body, 68)
        if valid & SET_MODE:
            os.fchmod(self._backing, stat.S_IMODE(mode))
        if valid & (SET_UID | SET_GID):
            os.fchown(self._backing, uid if valid & SET_UID else -1, gid if valid & SET_GID else -1)
        if valid & SET_SIZE:
            os.ftruncate(self._backing, size)
        return self._attributes()

    def _read(self, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(self._backing, size, offset)

    def _write(self, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        return struct.pack("<II", os.pwrite(self._backing, body[40 : 40 + size], offset), 0)

    def _sync(self, _: bytes) -> bytes:
        os.fsync(self._backing)
        return b""


def main(path: str) -> None:
    backing, device = os.open(path, os.O_RDWR), os.open("/dev/fuse", os.O_RDWR)
    mode = os.fstat(backing).st_mode
    options = f"fd={device},rootmode={mode:o},user_id=0,group_id=0,allow_other"
    kernel_calls.mount("faulty-disk", path, "fuse", kernel_calls.MS_NOSUID | kernel_calls.MS_NODEV, options)
    print("mounted", flush=True)
    try:
        _serve(FaultyDisk(backing, device), device)
    finally:
        kernel_calls.detach(path)


def _serve(disk: FaultyDisk, device: int) -> None:
    words = sys.stdin.fileno()
    while True:
        ready, _, _ = select.select([device, words], [], [])
        if device in ready:
            disk.serve(os.read(device, MAX_WRITE + 8192))
        if words in ready:
            word = os.read(words, 64).decode().strip()
            if word not in FAULTS:
                return
            disk.behave(word)
            print(word, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
