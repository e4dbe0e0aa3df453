# SPDX-License-Identifier: GPL-2.0-or-later
"""Real loop mounts by the root helper's verbs, in a folder of the test."""

import asyncio
import os
import subprocess
import tempfile

import pytest

from storage.connections import Connections
from storage.domains import Domains
from storage.edges import lease_edges
from storage.file.folders import MountedLooks
from storage.file.iopool import IoPools
from storage.file.source import MountedFolders
from storage.servers.connectors import connectors
from storage.servers.kinds import PosixMount
from storage.servers.records import ConnectionRecords
from vdsm.api.codes import code_for
from vdsm.common.errors import CommandFailed
from vdsm.common.paths import Paths
from vdsm.root.server import mount_points, mounts
from vdsm.root.server.registry import Helper, dispatch


@pytest.fixture
def helper():
    # not pytest's folder: user 36 must reach what is mounted below, and pytest's are root's alone
    with tempfile.TemporaryDirectory(prefix="vdsm-mounts-") as folder:
        os.chmod(folder, 0o755)
        paths = Paths(repository=f"{folder}/rhev", root_state=f"{folder}/state", root_run=f"{folder}/run")
        os.makedirs(paths.mounts)
        yield Helper(paths, 36, 36)


@pytest.fixture
def image(helper):
    path = os.path.dirname(helper.paths.repository) + "/disk_1.img"
    with open(path, "wb") as f:
        f.truncate(64 << 20)
    return path


def make_fs(image, owner):
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", f"root_owner={owner}", image], check=True)


def loop_devices(image):
    return subprocess.run(["losetup", "-j", image], check=True, capture_output=True, text=True).stdout


def slots(helper):
    return os.listdir(helper.paths.root_staging)


async def define(helper, image, options="loop"):
    return (await dispatch(helper, "Mount.define", {"spec": image, "vfs_type": "ext4", "options": options}))["mount_id"]


async def test_loop_mount_is_usable_listed_and_leaves_nothing(helper, image):
    make_fs(image, "36:36")
    mount_id = await define(helper, image)
    target = f"{helper.paths.mounts}/{mount_id}"
    assert await dispatch(helper, "Mount.mount", {"mount_id": mount_id}) == {
        "path": target,
        "mounted": True,
        "notes": [],
    }
    try:
        assert os.path.ismount(target)
        assert os.stat(target).st_uid == 36
        with open("/proc/self/mounts") as f:
            options = next(line.split()[3] for line in f if line.split()[1] == target)
        assert {"nosuid", "nodev"} <= set(options.split(","))
        assert loop_devices(image)
        # another helper process knows it: the records are files, what is mounted is the kernel's
        again = Helper(helper.paths, 36, 36)
        assert (await dispatch(again, "Mount.list", {}))[mount_id]["mounted"]
        assert (await dispatch(again, "Mount.mount", {"mount_id": mount_id}))["mounted"] is False
        with pytest.raises(mounts.MountInUse):
            await define(helper, image, "loop,ro")
    finally:
        assert await dispatch(helper, "Mount.unmount", {"mount_id": mount_id}) == {"unmounted": True}
    assert not os.path.exists(target)
    assert loop_devices(image) == ""
    assert slots(helper) == []
    assert await dispatch(helper, "Mount.list", {}) == {}


async def test_mount_that_the_agent_cannot_use_is_undone(helper, image):
    make_fs(image, "0:0")
    mount_id = await define(helper, image)
    with pytest.raises(mounts.MountAccessRefused, match="36:36"):
        await dispatch(helper, "Mount.mount", {"mount_id": mount_id})
    assert os.listdir(helper.paths.mounts) == []
    assert loop_devices(image) == ""


async def test_what_is_no_file_system_is_told(helper, image):
    mount_id = await define(helper, image)
    with pytest.raises(CommandFailed, match="mount"):
        await dispatch(helper, "Mount.mount", {"mount_id": mount_id})
    assert loop_devices(image) == ""
    assert slots(helper) == []


async def test_busy_mount_stays_and_forced_unmount_frees_its_place(helper, image):
    make_fs(image, "36:36")
    mount_id = await define(helper, image)
    await dispatch(helper, "Mount.mount", {"mount_id": mount_id})
    target = f"{helper.paths.mounts}/{mount_id}"
    held = os.open(target, os.O_RDONLY)
    try:
        with pytest.raises(CommandFailed, match="busy"):
            await dispatch(helper, "Mount.unmount", {"mount_id": mount_id})
        assert os.path.ismount(target)
        assert (await dispatch(helper, "Mount.unmount_forced", {"mount_id": mount_id}))["unmounted"]
        assert not os.path.exists(target)
    finally:
        os.close(held)
    assert loop_devices(image) == ""


async def test_a_mount_is_not_to_be_seen_before_it_was_checked(helper, image, monkeypatch):
    make_fs(image, "36:36")
    mount_id = await define(helper, image)
    seen = []

    async def look(helper, slot, target):
        seen.append(os.listdir(helper.paths.mounts + "/" + mount_id))
        enter = ["setpriv", "--reuid=36", "--regid=36", "--clear-groups", "--", "ls", slot.place]
        seen.append(subprocess.run(enter, check=False, capture_output=True).returncode)

    monkeypatch.setattr(mounts, "_check_access", look)
    target = (await dispatch(helper, "Mount.mount", {"mount_id": mount_id}))["path"]
    assert seen == [[], 2]
    assert os.listdir(target) == ["lost+found"]
    await dispatch(helper, "Mount.unmount", {"mount_id": mount_id})


async def test_what_a_killed_helper_left_in_slots_is_taken_away(helper, image):
    make_fs(image, "36:36")
    async with mount_points.slot(helper) as slot:
        left = slot.path + ".left"
        os.makedirs(f"{left}/m")
        subprocess.run(["mount", "-o", "loop", image, f"{left}/m"], check=True)
        open(f"{helper.paths.root_staging}/no_slot", "w").close()  # does not stop the sweep
    await mount_points.sweep(helper)
    assert slots(helper) == ["no_slot"]
    assert loop_devices(image) == ""


async def test_changes_of_a_mount_come_one_after_the_other(helper, image):
    make_fs(image, "36:36")
    mount_id = await define(helper, image)
    both = await asyncio.gather(*(dispatch(helper, "Mount.mount", {"mount_id": mount_id}) for _ in range(2)))
    assert sorted(answer["mounted"] for answer in both) == [False, True]
    await dispatch(helper, "Mount.unmount", {"mount_id": mount_id})
    assert not os.path.exists(both[0]["path"])


class Verbs:
    """The helper's verbs, called as the agent does over its socket."""

    def __init__(self, helper):
        self._helper = helper

    async def call(self, verb, params, *, timeout_s):
        return await dispatch(self._helper, verb, params)


async def test_a_connection_has_the_fields_codes_and_takes_default_options(helper, image):
    pools = IoPools()
    domains = Domains(MountedFolders(helper.paths.mounts, lease_edges(), pools, io_timeout_s=1))
    records = ConnectionRecords(f"{helper.paths.root_state}/connections")
    served = connectors(helper.paths.mounts, Verbs(helper), MountedLooks(pools), qemu_users=(), io_timeout_s=1)
    connections = Connections(helper.paths.mounts, served, domains, users_below=lambda mount: [], records=records)
    connection = PosixMount("c", image, "ext4", "defaults,loop")

    make_fs(image, "0:0")
    (refused,) = await connections.connect([connection])
    assert code_for(refused.error, "StoragePool.connectStorageServer") == 469
    assert "36:36" in str(refused.error)
    assert not os.path.exists(connections.mount_path(image))

    make_fs(image, "36:36")
    (connected,) = await connections.connect([connection])
    assert connected.error is None
    assert os.path.ismount(connections.mount_path(image))
    busy = open(f"{connections.mount_path(image)}/used", "w")  # noqa: SIM115 - held open on purpose
    (in_use,) = await connections.disconnect([connection])
    assert "busy" in str(in_use.error)
    busy.close()
    (left,) = await connections.disconnect([connection])
    assert left.error is None
    assert not os.path.exists(connections.mount_path(image))
    assert not loop_devices(image)
