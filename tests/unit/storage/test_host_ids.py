# SPDX-License-Identifier: GPL-2.0-or-later
"""Who stands in a lockspace, read from storage that is well, damaged or hangs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from test_ondisk_areas import leader

from storage.file.host_ids import read_owner
from storage.file.io import FileIo
from storage.leases import HostIdOwner, Lockspace


def _space(path: Path) -> Lockspace:
    return Lockspace("sd", str(path), 1 << 20, 512, 10)


async def test_a_host_ids_record_is_read_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    record = leader(timestamp=4711)
    path.write_bytes(bytes(6 * 512) + record + bytes((1 << 20) - 7 * 512))
    io = FileIo(str(tmp_path))
    assert await read_owner(io, _space(path), 7) == HostIdOwner("SDM", 7, 4711)
    assert await read_owner(io, _space(path), 6) is None  # nothing was ever written there
    await io.close()


async def test_storage_that_hangs_holds_no_thread_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    os.mkfifo(path)  # opening it hangs, as a dead mount does
    io = FileIo(str(tmp_path), timeout_s=0.3)
    assert await io.exists(str(path))  # its helper is there, and who waits for that one's end
    before = set(threading.enumerate())
    assert await read_owner(io, _space(path), 1) is None
    assert set(threading.enumerate()) <= before
    await io.close()
