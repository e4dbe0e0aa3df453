# SPDX-License-Identifier: GPL-2.0-or-later
"""qemu-img on images as guests may leave them."""

import asyncio
import subprocess

import pytest

from storage import qemu_img
from storage.errors import StorageNotResponding, UnsafeImage
from storage.ondisk.values import VolumeFormat
from vdsm.common import hanging
from vdsm.common.errors import CommandFailed

MIB = 1 << 20
MOUNT = "/no/mount"


def make(*argv):
    subprocess.run(["qemu-img", "create", "-q", *map(str, argv)], check=True)


async def test_info_of_what_create_made(tmp_path):
    path = tmp_path / "top"
    path.touch()
    await qemu_img.create(str(path), 8 * MIB, VolumeFormat.COW, backing=("base", VolumeFormat.RAW), mount=MOUNT)
    found = await qemu_img.info(str(path), VolumeFormat.COW, mount=MOUNT)
    assert (found.format, found.virtual_size, found.compat) == ("qcow2", 8 * MIB, "1.1")
    assert (found.backing_file, found.backing_format) == ("base", "raw")


async def test_raw_volume_with_a_qcow2_header_stays_raw(tmp_path):
    path = tmp_path / "raw"
    make("-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", path, MIB)
    found = await qemu_img.info(str(path), VolumeFormat.RAW, mount=MOUNT)
    assert (found.format, found.backing_file) == ("raw", None)


async def test_external_data_file_is_refused(tmp_path):
    make("-f", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on", tmp_path / "image", MIB)
    with pytest.raises(UnsafeImage, match="another file"):
        await qemu_img.info(str(tmp_path / "image"), VolumeFormat.COW, mount=MOUNT)


async def test_what_is_no_qcow2_is_an_error(tmp_path):
    (tmp_path / "image").write_bytes(b"x" * 4096)
    with pytest.raises(CommandFailed, match="qcow2"):
        await qemu_img.info(str(tmp_path / "image"), VolumeFormat.COW, mount=MOUNT)


async def test_check_of_a_sound_image(tmp_path):
    path = tmp_path / "image"
    make("-f", "qcow2", path, 64 * MIB)
    checked = await qemu_img.check(str(path), VolumeFormat.COW, mount=MOUNT, timeout_s=30)
    assert (checked.leaks, checked.corruptions) == (0, 0)
    assert checked.image_end_offset is not None
    assert checked.image_end_offset >= path.stat().st_size


async def test_limits_are_those_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(qemu_img, "MEMORY_LIMIT", 1 << 20)
    make("-f", "qcow2", tmp_path / "image", MIB)
    with pytest.raises(CommandFailed):
        await qemu_img.info(str(tmp_path / "image"), VolumeFormat.COW, mount=MOUNT)


async def test_nothing_is_begun_on_a_mount_where_processes_hang(tmp_path, monkeypatch):
    make("-f", "qcow2", tmp_path / "image", MIB)
    monkeypatch.setattr(hanging, "SETTLE_S", 0)
    ends = [asyncio.get_running_loop().create_future() for _ in range(hanging.MOST)]
    for end in ends:
        hanging.give_up("/dead", 1, end)
    with pytest.raises(StorageNotResponding, match="/dead"):
        await qemu_img.info(str(tmp_path / "image"), VolumeFormat.COW, mount="/dead")
    for end in ends:
        end.set_result(None)
    await asyncio.sleep(0)
    await qemu_img.info(str(tmp_path / "image"), VolumeFormat.COW, mount="/dead")
