# SPDX-License-Identifier: GPL-2.0-or-later
"""What a connection may name, before anybody looks there."""

from __future__ import annotations

import pytest

from storage.servers.kinds import LocalFolder, NfsExport, PosixMount, content, folder_name, refused


@pytest.mark.parametrize(
    ("spec", "folder"),
    [
        ("srv:/export/my_dir", "srv:_export_my__dir"),
        ("srv:/", "srv:_"),
        ("192.0.2.1:/x", "192.0.2.1:_x"),
        ("[::1]:/x", "[::1]:_x"),
        ("[fe80::1%eth0]:/x", "[fe80::1%eth0]:_x"),
        ("srv:/and,comma/ünïcode", "srv:_and,comma_ünïcode"),
        ("srv://a//b/", "srv:_a_b"),
    ],
)
def test_an_export_is_taken_and_has_the_fields_folder(spec: str, folder: str) -> None:
    assert refused(NfsExport("c", spec)) == ""
    assert refused(PosixMount("c", spec, "nfs4")) == ""
    assert folder_name(NfsExport("c", spec)) == folder


@pytest.mark.parametrize(
    "spec",
    ["", "srv", "srv:", ":/x", "srv:x", "/srv/x", "fe80::1:/x", "a,b:/x", "srv:/x\n", "srv:/\x00", "srv:/\u2028"],
)
def test_what_is_no_export_is_refused(spec: str) -> None:
    assert refused(NfsExport("c", spec)) != ""
    assert refused(PosixMount("c", spec, "nfs")) != ""


def test_a_path_with_blanks_is_for_folders_that_the_lock_daemon_has_no_part_in() -> None:
    assert "no path with blanks" in refused(NfsExport("c", "srv:/a b"))
    assert "no path with blanks" in refused(PosixMount("c", "/srv/a b.img", "ext4"))
    assert refused(LocalFolder("c", "/srv/a b")) == ""


def test_other_mounts_are_named_freely() -> None:
    assert refused(PosixMount("c", "mon1:6789,mon2:6789:/", "ceph")) == ""
    assert refused(PosixMount("c", "/dev/sdb1", "xfs")) == ""


@pytest.mark.parametrize("folder", ["data", "/srv/../etc", "srv:/x"])
def test_a_local_folder_has_an_absolute_path(folder: str) -> None:
    assert "absolute path" in refused(LocalFolder("c", folder))


def test_the_same_storage_under_another_id_is_the_same_connection() -> None:
    assert content(NfsExport("a", "srv:/x")) == content(NfsExport("b", "srv:/x"))
    assert content(NfsExport("a", "srv:/x")) != content(NfsExport("a", "srv:/x", retrans=4))
    assert content(NfsExport("a", "srv:/x")) != content(PosixMount("a", "srv:/x"))


def test_options_are_not_shown() -> None:
    assert "geheim" not in repr(
        [PosixMount("a", "//srv/x", "cifs", "password=geheim"), NfsExport("a", "s:/", options="geheim")]
    )
