# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told of storage that is refused, and who waits for whom, where a mistake would be seen by a caller alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_world import mounted_domains

from storage import locks, qemu_img
from storage.connections import Connections
from storage.errors import InvalidContent, UnsafeImage
from storage.file.folders import MountedLooks
from storage.file.iopool import IoPools
from storage.locks import Mode
from storage.servers.kinds import LocalFolder
from storage.servers.local import LocalFolders
from storage.servers.records import ConnectionRecords

A, B, C = (locks.image("d", name) for name in "abc")
A_SHARED = locks.image("d", "a", Mode.SHARED)


class NoRoot:
    async def call(self, verb: str, params: object, *, timeout_s: float) -> object:
        raise AssertionError(verb)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("srv/x", "a local folder is named by its absolute path"),
        ("{top}/a/../b", "a local folder is named by its absolute path"),
        ("{top}/file", "it is no folder"),
        ("{top}/none", "there is no such folder (No such file or directory)"),
    ],
)
async def test_a_local_folder_that_is_refused_is_named_with_the_reason(
    tmp_path: Path, pools: IoPools, spec: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    domains = mounted_domains(str(tmp_path), pools)
    records = ConnectionRecords(str(tmp_path / "records"))
    connectors = {LocalFolder: LocalFolders(NoRoot(), MountedLooks(pools), ())}
    connections = Connections(str(tmp_path), connectors, domains, users_below=lambda _path: [], records=records)
    wanted = spec.format(top=tmp_path)
    (result,) = await connections.connect([LocalFolder("c", wanted)])
    assert result.error is not None
    assert wanted in str(result.error)
    assert reason in str(result.error)


# -- qemu-img's answers

INFO = {"format": "qcow2", "virtual-size": 1 << 20}


@pytest.mark.parametrize("specific", [{"data-file": "/etc/x"}, {"data-file-raw": True}])
def test_an_image_whose_data_lies_elsewhere_is_refused_whatever_says_so(specific: dict[str, object]) -> None:
    with pytest.raises(UnsafeImage, match="another file"):
        qemu_img._image_info({**INFO, "format-specific": {"data": specific}}, "/image")


def test_what_qemu_img_does_not_say_is_not_there() -> None:
    found = qemu_img._image_info(INFO, "/image")
    assert (found.path, found.format, found.virtual_size, found.actual_size) == ("/image", "qcow2", 1 << 20, 0)
    assert (found.backing_file, found.backing_format, found.compat, found.cluster_size) == (None, None, None, None)


def test_what_qemu_img_says_is_taken() -> None:
    more = {
        "filename": "/other",
        "actual-size": 7,
        "backing-filename": "base",
        "backing-filename-format": "raw",
        "cluster-size": 65536,
        "format-specific": {"data": {"compat": "1.1", "data-file-raw": False}},
    }
    found = qemu_img._image_info({**INFO, **more}, "/image")
    assert (found.path, found.actual_size, found.compat) == ("/other", 7, "1.1")
    assert (found.backing_file, found.backing_format, found.cluster_size) == ("base", "raw", 65536)


@pytest.mark.parametrize("out", [b"", b"[]", b"7", b"{", b"\xff"])
def test_an_answer_of_qemu_img_that_is_no_object_names_its_file(out: bytes) -> None:
    with pytest.raises(InvalidContent) as e:
        qemu_img._document(out, "/image")
    assert "/image" in str(e.value)
    assert "no JSON object" in str(e.value)


# -- locks


def test_of_one_lock_wanted_twice_the_exclusive_counts() -> None:
    assert locks.merge([A_SHARED, A, B, A_SHARED]) == [A, B]
    assert locks.merge([A, A_SHARED]) == [A]
    assert locks.merge([A_SHARED, A_SHARED]) == [A_SHARED]


def test_flows_that_share_a_lock_alone_are_one_group_and_readers_are_not() -> None:
    groups = locks.overlapping([("1", [A]), ("2", [B]), ("3", [C]), ("4", [A_SHARED, B])])
    assert sorted([[name for name, _ in group] for group in groups]) == [["1", "2", "4"], ["3"]]
    readers = locks.overlapping([("1", [A_SHARED]), ("2", [A_SHARED])])
    assert [[name for name, _ in group] for group in readers] == [["1"], ["2"]]


def test_locks_are_named_as_the_field_names_them() -> None:
    found = [str(lock) for lock in (locks.domain("d"), locks.image("d", "i"), locks.volume("d", "v"))]
    assert found == ["00_storage/d", "01_img_d/i", "02_vol_d/v"]
