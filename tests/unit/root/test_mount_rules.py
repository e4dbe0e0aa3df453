# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be mounted: specifications, types and options that would give root away are refused."""

import contextlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm.common.errors import InvalidParameter
from vdsm.common.paths import Paths
from vdsm.root.server.mount_records import UnknownMount
from vdsm.root.server.mount_rules import block_types, check_options, check_spec, check_type
from vdsm.root.server.registry import Helper, dispatch
from vdsm.root.server.verbs import PARTS
from vdsm.root.server.walk import UnsafeFolder

assert PARTS  # their verbs are declared

FILESYSTEMS = "nodev\tsysfs\nnodev\tproc\n\text4\n\txfs\n\tfuseblk\n\tvfat\nnodev\toverlay\n"


@pytest.mark.parametrize(
    "spec",
    [
        "srv:/export",
        "srv://export/",
        "/dev/sdb1",
        "/srv/disk.img",
        "[fe80::1]:/x",
        "h1,h2:/cephfs",
        "s:/with_letters/ü,x",
    ],
)
def test_storage_of_the_field_is_accepted(spec):
    assert check_spec(spec) == spec.replace("//", "/").rstrip("/")


@pytest.mark.parametrize("spec", ["srv:/", "[fe80::1]:/", "mon1:6789,mon2:6789:/"])
def test_the_root_of_a_server_is_accepted_and_keeps_its_slash(spec):
    assert check_spec(spec) == spec


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "/",
        "x",
        "-o:/x",
        "a b:/x",
        "srv:/a\nb",
        "srv:/a/../../etc",
        "/./etc",
        "a\0:/x",
        "/" + "x" * 600,
        "/" + "_" * 200,
        "$(id):/x",
        "srv:/$(id)",
        "srv:/a;b",
        "srv:/a b",
        "srv:/x ",
        "srv:/a\tb",
        "srv:/" + "é" * 120,
        "srv:/\ud800",
    ],
)
def test_other_specifications_are_refused(spec):
    with pytest.raises(InvalidParameter, match="'spec'"):
        check_spec(spec)


@pytest.mark.parametrize("vfs_type", ["ext4", "xfs", "nfs", "nfs4", "ceph", "vfat"])
def test_storage_types_are_accepted(vfs_type):
    assert check_type(vfs_type, block_types(FILESYSTEMS)) == vfs_type


@pytest.mark.parametrize(
    "vfs_type",
    ["", "proc", "overlay", "glusterfs", "fuse", "fuseblk", "fuse.sh", "bind", "auto", "ext4,suid", "../ext4", "EXT4"],
)
def test_other_types_are_refused(vfs_type):
    with pytest.raises(InvalidParameter, match="'vfs_type'"):
        check_type(vfs_type, block_types(FILESYSTEMS))


def test_options_always_end_without_suid_and_devices():
    assert check_options("loop,ro,soft,timeo=100,nodev") == ["loop", "ro", "soft", "timeo=100", "nosuid", "nodev"]
    assert check_options("") == ["nosuid", "nodev"]
    assert check_options("defaults") == ["nosuid", "nodev"]
    assert check_options("rw,defaults,soft") == ["rw", "soft", "nosuid", "nodev"]


@pytest.mark.parametrize(
    "option",
    [
        "suid",
        "dev",
        "bind",
        "rbind",
        "remount",
        "move",
        "user",
        "loop=/dev/loop0",
        "helper=sh",
        "uhelper=x",
        "lowerdir=/etc",
        "x-mount.mkdir",
        "X-mount.owner=0",
        "a b",
        "-o",
        "$(id)",
        "logdev=/dev/sda",
        "logdev=8:1",
        "journal_dev=0x801",
        "log-file=x",
        "conf=/etc/shadow",
        "errors=panic",
        "conf=var/lib/x.conf",
        "configuration",
        "credentialspath=root/x",
        "cred1=root/x",
        "secretfilepath=root/x",
        "remountx",
        "log_file=x",
        "subvol=a/b",
    ],
)
def test_options_that_give_root_away_are_refused(option):
    with pytest.raises(InvalidParameter, match="'options'"):
        check_options(f"ro,{option}")


@given(st.text(max_size=80))
def test_any_options_keep_nosuid_and_nodev_last(text):
    with contextlib.suppress(InvalidParameter):
        assert check_options(text)[-2:] == ["nosuid", "nodev"]


@pytest.fixture
def helper(tmp_path):
    paths = Paths(repository=str(tmp_path / "rhev"), root_state=str(tmp_path / "state"))
    os.makedirs(paths.mounts)
    return Helper(paths, os.getuid(), os.getgid())


async def test_a_specification_is_recorded_once_and_named_by_its_folder(helper, tmp_path):
    answer = await dispatch(helper, "Mount.define", {"spec": "srv:/a_b", "vfs_type": "nfs", "options": "soft"})
    assert answer == {"mount_id": "srv:_a__b"}
    with open(tmp_path / "state" / "mounts" / "srv:_a__b.json") as f:
        record = json.load(f)
    assert record == {"spec": "srv:/a_b", "vfs_type": "nfs", "options": ["soft", "nosuid", "nodev"], "secrets": []}
    listed = await dispatch(helper, "Mount.list", {})
    assert listed["srv:_a__b"]["mounted"] is False


@pytest.mark.parametrize("mount_id", ["../x", "a/b", "", "..", "x" * 300, "a\0"])
async def test_ids_that_are_no_folder_names_are_refused(helper, mount_id):
    for verb in ("Mount.mount", "Mount.unmount", "Mount.unmount_forced"):
        with pytest.raises(InvalidParameter, match="'mount_id'"):
            await dispatch(helper, verb, {"mount_id": mount_id})


async def test_nothing_is_mounted_that_was_not_defined(helper):
    with pytest.raises(UnknownMount, match="srv:_x"):
        await dispatch(helper, "Mount.mount", {"mount_id": "srv:_x"})
    assert await dispatch(helper, "Mount.unmount", {"mount_id": "srv:_x"}) == {"unmounted": False}


async def test_a_record_that_cannot_be_read_costs_its_own_mount_only(helper, tmp_path, caplog):
    for spec in ("srv:/x", "srv:/y"):
        await dispatch(helper, "Mount.define", {"spec": spec, "vfs_type": "nfs"})
    (tmp_path / "state" / "mounts" / "srv:_x.json").write_text("{")
    assert list(await dispatch(helper, "Mount.list", {})) == ["srv:_y"]
    assert "srv:_x" in caplog.text
    await dispatch(helper, "Mount.define", {"spec": "srv:/x", "vfs_type": "nfs"})
    assert list(await dispatch(helper, "Mount.list", {})) == ["srv:_x", "srv:_y"]


async def test_a_link_as_mount_point_is_refused(helper):
    await dispatch(helper, "Mount.define", {"spec": "srv:/x", "vfs_type": "nfs"})
    os.symlink("/etc", os.path.join(helper.paths.mounts, "srv:_x"))
    with pytest.raises(UnsafeFolder, match="no folder"):
        await dispatch(helper, "Mount.mount", {"mount_id": "srv:_x"})


async def test_paths_are_no_parameters(helper):
    with pytest.raises(InvalidParameter, match="unknown field"):
        await dispatch(helper, "Mount.mount", {"mount_id": "srv:_x", "path": "/etc"})
