# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands in ``mnt``, and what mount(8) is told: by the helper's verbs, in mounts of the test's own."""

import asyncio
import contextlib
import os
import shutil
import subprocess

import pytest

from vdsm.common import commands
from vdsm.common import hanging as given_up
from vdsm.common.errors import CommandFailed, CommandHangs, DeadlineExceeded
from vdsm.root.server import mount_points, mount_users, mounts
from vdsm.root.server.registry import Helper, dispatch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")

ID = "srv:_x"


async def define(helper, options="soft", vfs_type="lustre"):
    answer = await dispatch(helper, "Mount.define", {"spec": "srv:/x", "vfs_type": vfs_type, "options": options})
    assert answer == {"mount_id": ID}


async def mount(helper):
    return await dispatch(helper, "Mount.mount", {"mount_id": ID})


async def unmount(helper, verb="Mount.unmount"):
    return await dispatch(helper, verb, {"mount_id": ID})


def target(helper):
    return f"{helper.paths.mounts}/{ID}"


def slots(helper):
    return os.listdir(helper.paths.root_staging)


def nothing_stays(helper):
    return os.listdir(helper.paths.mounts) == slots(helper) == []


def mounted_on(path):
    with open("/proc/self/mountinfo") as f:
        return sum(line.split()[4] == path for line in f)


async def test_storage_is_mounted_as_defined_and_seen_in_its_folder_alone(helper, program):
    await define(helper)
    assert await mount(helper) == {"path": target(helper), "mounted": True, "notes": []}
    *told, place = program.told("asked")
    assert told == ["-t", "lustre", "-o", "soft,nosuid,nodev", "--", "srv:/x"]
    assert os.path.dirname(os.path.dirname(place)) == helper.paths.root_staging
    assert mounted_on(target(helper)) == 1
    assert os.stat(target(helper)).st_uid == 36
    assert slots(helper) == []
    assert (await dispatch(helper, "Mount.list", {}))[ID]["mounted"] is True


async def test_only_root_can_reach_what_is_not_checked_yet(helper, program):
    await define(helper)
    await mount(helper)
    assert program.told("modes") == ["755", "700"]


async def test_what_is_mounted_is_not_mounted_again(helper, program):
    await define(helper)
    await mount(helper)
    assert await mount(Helper(helper.paths, 36, 36)) == {"path": target(helper), "mounted": False, "notes": []}
    assert (program.runs, mounted_on(target(helper))) == (1, 1)


async def test_two_who_ask_at_once_get_one_mount(helper, program):
    await define(helper)
    both = await asyncio.gather(mount(helper), mount(helper))
    assert sorted(answer["mounted"] for answer in both) == [False, True]
    assert program.runs == 1


async def test_what_is_unmounted_is_forgotten(helper, program):
    await define(helper)
    await mount(helper)
    assert await unmount(helper) == {"unmounted": True}
    assert nothing_stays(helper)
    assert mounted_on(target(helper)) == 0
    assert await dispatch(helper, "Mount.list", {}) == {}
    assert await unmount(helper) == {"unmounted": False}


async def test_a_definition_alone_is_forgotten_too(helper, program):
    await define(helper)
    assert await unmount(helper) == {"unmounted": False}
    assert await dispatch(helper, "Mount.list", {}) == {}


async def test_other_options_wait_for_the_unmount(helper, program):
    await define(helper)
    await mount(helper)
    await define(helper)
    with pytest.raises(mounts.MountInUse, match=ID):
        await define(helper, "ro")
    await unmount(helper)
    await define(helper, "ro")
    await mount(helper)
    assert program.told("asked")[3] == "ro,nosuid,nodev"


async def test_storage_that_the_agent_cannot_use_is_not_left_mounted(helper, program):
    program.options = "mode=0700,uid=0"
    program.write()
    await define(helper)
    with pytest.raises(mounts.MountAccessRefused) as e:
        await mount(helper)
    assert str(e.value) == "user 36:36 cannot read, write and enter it"
    assert nothing_stays(helper)


@pytest.mark.parametrize("mode", ["0570,uid=36", "0670,uid=36", "0370,uid=36"])
async def test_the_agent_needs_all_three_rights(helper, program, mode):
    program.options = f"mode={mode}"
    program.write()
    await define(helper)
    with pytest.raises(mounts.MountAccessRefused):
        await mount(helper)


async def test_groups_of_root_do_not_help_the_agent(helper, program):
    program.options = "mode=0070,uid=1,gid=0"
    program.write()
    await define(helper)
    with pytest.raises(mounts.MountAccessRefused):
        await mount(helper)


async def test_the_agents_group_is_enough(helper, program):
    program.options = "mode=0070,uid=1,gid=36"
    program.write()
    await define(helper)
    assert (await mount(helper))["mounted"]


async def test_storage_that_qemu_cannot_use_is_not_left_mounted(helper, program, monkeypatch):
    monkeypatch.setattr(mount_users, "QEMU_USERS", ("no-such-user", "nobody"))
    await define(helper)
    with pytest.raises(mounts.MountAccessRefused) as e:
        await mount(helper)
    assert str(e.value) == "user nobody cannot read and enter it"
    assert nothing_stays(helper)


@pytest.mark.parametrize(("mode", "is_usable"), [("0775", True), ("0774", False), ("0771", False)])
async def test_qemu_needs_to_read_and_enter(helper, program, monkeypatch, mode, is_usable):
    monkeypatch.setattr(mount_users, "QEMU_USERS", ("nobody",))
    program.options = f"mode={mode},uid=36,gid=36"
    program.write()
    await define(helper)
    with contextlib.nullcontext() if is_usable else pytest.raises(mounts.MountAccessRefused, match="nobody"):
        await mount(helper)


async def test_qemus_own_groups_count(helper, program, monkeypatch):
    with open("/etc/group") as f:
        groups = [line.strip().split(":") for line in f]
    user, gid = next((who.split(",")[0], number) for _, _, number, who in groups if who)
    monkeypatch.setattr(mount_users, "QEMU_USERS", (user,))
    program.options = f"mode=0770,uid=36,gid={gid}"
    program.write()
    await define(helper)
    assert (await mount(helper))["mounted"]


async def test_a_check_that_fails_by_itself_is_no_lack_of_rights(helper, program, monkeypatch):
    setpriv = f"{program.folder}/setpriv"
    with open(setpriv, "w") as f:
        f.write('#!/bin/sh\ncase "$*" in *reuid*) echo broken >&2; exit 1;; esac\nexec /usr/bin/setpriv "$@"\n')
    os.chmod(setpriv, 0o755)
    await define(helper)
    with pytest.raises(CommandFailed, match="broken"):
        await mount(helper)


async def test_what_mount_says_is_told_and_nothing_stays(helper, program):
    program.write("echo 'mount: no such server' >&2; exit 32")
    await define(helper)
    with pytest.raises(CommandFailed, match="no such server") as e:
        await mount(helper)
    assert e.value.code == 32
    assert nothing_stays(helper)


async def test_a_mount_in_use_stays_until_it_is_forced(helper, program):
    await define(helper)
    await mount(helper)
    with open(f"{target(helper)}/used", "w") as used:
        with pytest.raises(CommandFailed, match="busy"):
            await unmount(helper)
        assert mounted_on(target(helper)) == 1
        assert (await dispatch(helper, "Mount.list", {}))[ID]["mounted"] is True
        assert await unmount(helper, "Mount.unmount_forced") == {"unmounted": True}
        assert nothing_stays(helper)
        used.write("still open")


def slow_detach(monkeypatch, *, is_done):
    real = mount_points.detach

    async def slow(folder, name, mode, place):
        if is_done:
            await real(folder, name, mode, place)
        raise DeadlineExceeded("detach", 10)

    monkeypatch.setattr(mount_points, "detach", slow)


async def test_a_mount_is_cut_off_though_the_kernel_still_waits_for_its_server(helper, program, monkeypatch):
    await define(helper)
    await mount(helper)
    slow_detach(monkeypatch, is_done=True)
    assert await unmount(helper, "Mount.unmount_forced") == {"unmounted": True}
    assert nothing_stays(helper)
    assert await dispatch(helper, "Mount.list", {}) == {}


async def test_one_that_is_still_there_is_not_told_as_cut_off(helper, program, monkeypatch):
    await define(helper)
    await mount(helper)
    slow_detach(monkeypatch, is_done=False)
    for verb in ("Mount.unmount", "Mount.unmount_forced"):
        with pytest.raises(DeadlineExceeded):
            await unmount(helper, verb)
    assert (await dispatch(helper, "Mount.list", {}))[ID]["mounted"] is True


async def test_a_mount_on_which_a_vm_runs_is_not_cut_off(helper, program, tmp_path):
    await define(helper)
    await mount(helper)
    qemu = tmp_path / "qemu-system-x"
    shutil.copy("/bin/sleep", qemu)
    with open(f"{target(helper)}/disk", "w") as disk:
        vm = subprocess.Popen([qemu, "60"], stdin=disk)
    try:
        with pytest.raises(mounts.MountUsed, match=rf"qemu-system-x \(process {vm.pid}\)"):
            await unmount(helper, "Mount.unmount_forced")
        assert mounted_on(target(helper)) == 1
        assert (await dispatch(helper, "Mount.list", {}))[ID]["mounted"] is True
    finally:
        vm.kill()
        vm.wait()
    assert await unmount(helper, "Mount.unmount_forced") == {"unmounted": True}


async def test_what_lies_below_a_mount_point_is_left_alone(helper, program):
    await define(helper)
    os.makedirs(f"{target(helper)}/somebodys")
    await mount(helper)
    assert await unmount(helper) == {"unmounted": True}
    assert os.listdir(target(helper)) == ["somebodys"]


async def test_a_password_is_in_a_file_until_it_is_mounted(helper, program):
    await define(helper, "ro,password=hunter2!x", "cifs")
    await mount(helper)
    asked = program.told("asked")
    assert "hunter2!x" not in " ".join(asked)
    assert asked[3] == f"ro,nosuid,nodev,credentials={os.path.dirname(asked[-1])}/credentials"
    assert program.told("credentials") == ["password=hunter2!x"]
    assert slots(helper) == []
    assert helper.secrets == {}


async def test_a_password_is_forgotten_with_its_definition(helper, program):
    await define(helper, "password=hunter2!x", "cifs")
    await unmount(helper)
    assert helper.secrets == {}


async def test_a_mount_that_failed_can_be_tried_again_with_its_password(helper, program):
    await define(helper, "password=hunter2!x", "cifs")
    program.write("exit 32")
    with pytest.raises(CommandFailed):
        await mount(helper)
    program.write()
    assert (await mount(helper))["mounted"]


async def test_mnt_that_is_missing_is_made_anew(helper, program):
    os.rmdir(helper.paths.mounts)
    await define(helper)
    assert (await mount(helper))["mounted"]
    assert (os.stat(helper.paths.mounts).st_uid, mounted_on(target(helper))) == (0, 1)


@pytest.mark.parametrize(
    ("verb", "params"),
    [
        ("Mount.unmount", {"mount_id": ID}),
        ("LocalFolder.link", {"folder": "/srv/x"}),
        ("LocalFolder.unlink", {"folder": "/srv/x"}),
        ("Pool.make_folder", {"pool_id": "5ccbb0f4-7b0c-4b93-9b58-5a5c0e4c8f5f"}),
    ],
)
async def test_what_else_is_missing_is_made_anew_too(helper, verb, params):
    await define(helper)
    shutil.rmtree(os.path.dirname(helper.paths.repository))
    await dispatch(helper, verb, params)
    assert os.stat(helper.paths.repository).st_uid == 0


# -- what is left behind


async def test_what_a_killed_helper_left_in_slots_is_taken_away(helper, program):
    await define(helper)
    await mount(helper)
    left = f"{helper.paths.root_staging}/left"
    os.makedirs(f"{left}/m")
    subprocess.run(["/bin/mount", "-t", "tmpfs", "x", f"{left}/m"], check=True)
    with open(f"{left}/credentials", "w") as f, open(f"{left}/m/used", "w"):  # in use, and gone all the same
        f.write("password=x\n")
        open(f"{helper.paths.root_staging}/no_slot", "w").close()  # does not stop the sweep
        await mount_points.sweep(helper)
    assert slots(helper) == ["no_slot"]
    assert mounted_on(f"{left}/m") == 0
    assert mounted_on(target(helper)) == 1


async def test_a_helper_that_never_mounted_has_nothing_to_take_away(helper):
    await mount_points.sweep(helper)
    assert not os.path.exists(helper.paths.root_staging)


@pytest.fixture
def hanging(program, monkeypatch):
    """mount(8) does not die when it is killed; opened for writing, the fifo lets it go on, and mount."""
    os.mkfifo(f"{program.folder}/kernel")
    program.write(f'read x < {program.folder}/kernel; mkdir -p "$place"; exec /bin/mount -t tmpfs ours "$place"')
    monkeypatch.setattr(commands.groups, "kill_group", lambda pid: None)
    monkeypatch.setattr(commands, "DEATH_S", 0.05)
    monkeypatch.setattr(mounts, "MOUNT_S", 0.5)
    return f"{program.folder}/kernel"


async def test_a_mount_that_hangs_in_the_kernel_is_given_up_and_its_slot_cleared_when_it_ends(helper, program, hanging):
    await define(helper)
    with pytest.raises(CommandHangs, match="mount"):
        await mount(helper)
    assert nothing_stays(helper)
    assert len(given_up.pids(target(helper))) == 1
    with open(hanging, "w"):
        pass
    await given_up.settle(target(helper), 30)
    await asyncio.gather(*mount_points._later)
    assert mounted_on(program.told("asked")[-1]) == 0
    assert nothing_stays(helper)
    assert given_up.pids(target(helper)) == []


async def test_mount_points_are_named_as_they_are(own_mounts, tmp_path):
    odd = tmp_path / "a b\\c\td\udce9"
    odd.mkdir()
    subprocess.run(["/bin/mount", "-t", "tmpfs", "x", odd], check=True)
    assert str(odd) in mount_points.mount_points()


async def test_a_secret_that_the_program_repeats_is_hidden_in_what_is_told(helper, program):
    await define(helper, "password=hunter2!x", "cifs")
    program.write('cat "$(dirname "$place")/credentials" >&2; exit 32')
    with pytest.raises(CommandFailed) as e:
        await mount(helper)
    assert "hunter2!x" not in str(e.value)
    assert "password=" in str(e.value)


@pytest.fixture
def elsewhere(own_folder, own_mounts):
    """A mount of somebody's, to which a link in the slot leads."""
    os.makedirs(f"{own_folder}/his")
    subprocess.run(["/bin/mount", "-t", "tmpfs", "his", f"{own_folder}/his"], check=True)
    return f"{own_folder}/his"


async def test_a_link_in_a_slot_brings_no_other_mount_to_light(helper, elsewhere):
    os.makedirs(f"{helper.paths.mounts}/x")
    async with mount_points.slot(helper) as slot:
        os.rmdir(slot.place)
        os.symlink(elsewhere, slot.place)
        point = os.open(f"{helper.paths.mounts}/x", os.O_PATH)
        with pytest.raises(CommandFailed, match="attach m: Invalid argument"):
            await mount_points.attach_to(slot, point, "x")
        os.close(point)
        os.unlink(slot.place)
        os.mkdir(slot.place)
    assert mounted_on(f"{helper.paths.mounts}/x") == 0


async def test_a_link_in_mnt_ends_no_other_mount(helper, elsewhere):
    os.symlink(elsewhere, f"{helper.paths.mounts}/x")
    with mount_points.folder(helper) as mnt, pytest.raises(CommandFailed, match="detach x: Invalid argument"):
        await mount_points.detach(mnt, "x", "forced", "x")
    assert mounted_on(elsewhere) == 1
