# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system that cannot reserve space (ext2): volumes get theirs by zeros, and no data is ever written over."""

import os
import subprocess

import pytest

from storage.file.domain import create_file_domain
from storage.file.io import FileIo
from storage.leases.flock_edge import FlockLeases
from storage.new_domain import NewDomain
from storage.new_volume import NewVolume
from storage.ondisk.values import Allocation, DomainKind, VolumeFormat
from vdsm.common.ids import new_uuid

MIB = 1 << 20


@pytest.fixture
def mounted(tmp_path):
    image, target = tmp_path / "disk.img", tmp_path / "mnt"
    target.mkdir()
    with open(image, "wb") as f:
        f.truncate(64 * MIB)
    subprocess.run(["mkfs.ext2", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-t", "ext2", "-o", "loop", image, target], check=True)
    try:
        yield str(target)
    finally:
        subprocess.run(["umount", target], check=True)


@pytest.mark.cost(2)
@pytest.mark.parametrize("form", [VolumeFormat.RAW, VolumeFormat.COW])
async def test_a_preallocated_volume_has_its_space_and_keeps_its_data_when_it_grows(mounted, form):
    new = NewDomain(new_uuid(), DomainKind.LOCALFS, "/srv", "d")
    io = FileIo(mounted)
    domain = await create_file_domain(new, mounted, io, FlockLeases(), io_timeout_s=10)
    image, volume = new_uuid(), new_uuid()
    await domain.volumes.create(NewVolume(image, volume, 12 * MIB, form, Allocation.PREALLOCATED))
    path = domain.files.volume(image, volume)
    with pytest.raises(OSError, match="not supported"), open(path, "r+b") as f:
        _fallocate(f.fileno())  # or else this test shows nothing
    assert os.stat(path).st_blocks * 512 >= 12 * MIB - 512 * 1024
    data = os.urandom(MIB)
    subprocess.run(["dd", f"of={path}", "conv=notrunc", "status=none"], input=data, check=True)
    end = os.path.getsize(path)
    await io.allocate(path, 20 * MIB, timeout_s=30)
    with open(path, "rb") as f:
        assert f.read(MIB) == data
        f.seek(end)
        assert f.read() == bytes(20 * MIB - end)
    await io.close()


def _fallocate(fd: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).fallocate64(fd, 0, ctypes.c_int64(0), ctypes.c_int64(4096)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
