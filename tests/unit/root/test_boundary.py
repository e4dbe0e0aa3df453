# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent's user can't bring root to do by what it puts into folders. As root, in a folder of the test."""

import asyncio
import json
import os
import stat
import subprocess
import sys
import tempfile

import pytest

from vdsm.common.errors import InvalidParameter
from vdsm.common.paths import Paths
from vdsm.hooking.directory import trust_of
from vdsm.root.server import __main__ as root
from vdsm.root.server import folders, mount_secrets, walk
from vdsm.root.server.mount_points import Slot
from vdsm.root.server.registry import Helper, dispatch
from vdsm.root.server.verbs import PARTS
from vdsm.root.server.walk import UnsafeFolder

assert PARTS  # their verbs are declared
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives folders away and takes them back")

AGENT = 36
POOL = "5ccbb0f4-7b0c-4b93-9b58-5a5c0e4c8f5f"


@pytest.fixture
def top():
    with tempfile.TemporaryDirectory(prefix="vdsm-boundary-") as folder:
        os.chmod(folder, 0o755)
        yield folder


@pytest.fixture
def helper(top):
    paths = Paths(
        repository=f"{top}/rhev/data-center",
        run=f"{top}/run/vdsm",
        state=f"{top}/lib/vdsm",
        log=f"{top}/log/vdsm",
        root_state=f"{top}/lib/vdsm-root",
        root_run=f"{top}/run/vdsm-root",
    )
    folders.prepare_own(paths)
    return Helper(paths, AGENT, AGENT)


@pytest.fixture
def victim(top):
    os.mkdir(f"{top}/etc", 0o755)
    return f"{top}/etc"


def owner(path):
    return os.lstat(path).st_uid


def as_agent(*argv):
    return subprocess.run(
        ["setpriv", f"--reuid={AGENT}", f"--regid={AGENT}", "--clear-groups", "--", *argv], capture_output=True
    ).returncode


# -- whose the folders are


def test_what_root_mounts_below_is_roots_and_what_the_agent_needs_is_its_own(helper):
    folders.prepare(helper)
    paths = helper.paths
    assert [owner(p) for p in (paths.repository, paths.mounts, paths.state, paths.root_run)] == [0, 0, 0, 0]
    assert {owner(p) for p in (paths.run, paths.log, *paths.state_folders)} == {AGENT}
    assert as_agent("mv", paths.mounts, f"{paths.repository}/x") != 0
    assert as_agent("mkdir", f"{paths.mounts}/x") != 0
    assert as_agent("ls", paths.root_state) != 0


def test_a_host_that_vdsm_had_is_taken_over(helper):
    os.makedirs(helper.paths.mounts)
    for path in (helper.paths.repository, helper.paths.mounts):
        os.chown(path, AGENT, AGENT)
        os.chmod(path, 0o775)
    folders.prepare(helper)
    for path in (helper.paths.repository, helper.paths.mounts):
        assert (owner(path), stat.S_IMODE(os.stat(path).st_mode)) == (0, 0o755)


def test_a_link_of_the_agents_in_place_of_mnt_is_removed_and_leads_nowhere(helper, victim):
    os.makedirs(helper.paths.repository)
    os.symlink(victim, helper.paths.mounts)
    os.chown(helper.paths.mounts, AGENT, AGENT, follow_symlinks=False)
    os.chmod(victim, 0o700)
    folders.prepare(helper)
    assert not os.path.islink(helper.paths.mounts)
    assert (owner(victim), stat.S_IMODE(os.stat(victim).st_mode)) == (0, 0o700)


def test_a_link_in_place_of_a_folder_of_the_agents_gives_nothing_away(helper, victim, caplog):
    os.makedirs(os.path.dirname(helper.paths.log))
    os.symlink(victim, helper.paths.log)
    folders.prepare(helper)
    assert owner(victim) == 0
    assert f"folder {helper.paths.log} can't be prepared" in caplog.text
    assert owner(helper.paths.run) == AGENT  # the others are there all the same


def test_what_is_exchanged_while_it_is_taken_over_is_noticed(helper, victim, monkeypatch):
    os.makedirs(helper.paths.mounts)
    os.chown(helper.paths.mounts, AGENT, AGENT)
    real = os.fchown

    def exchanged(fd, uid, gid):
        if not os.path.exists(f"{helper.paths.mounts}.old"):
            os.rename(helper.paths.mounts, f"{helper.paths.mounts}.old")
            os.rename(victim, helper.paths.mounts)
        real(fd, uid, gid)

    with walk.trusted(helper.paths.repository) as parent:
        monkeypatch.setattr(os, "fchown", exchanged)
        with pytest.raises(UnsafeFolder, match=f"{helper.paths.mounts}: it was replaced"):
            walk.make_own_in(parent, "mnt", helper.paths.mounts, 0o755)


@pytest.fixture
def no_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_nobody_else_may_write_in_what_is_made(helper, no_umask):
    folders.prepare_own(helper.paths)
    folders.prepare(helper)
    paths = helper.paths
    assert [mode(path) for path in (paths.root_run, paths.root_state)] == [0o755, 0o700]
    others = (paths.repository, paths.mounts, paths.state, paths.run, paths.log, *paths.state_folders)
    assert {mode(path) for path in others} == {0o755}
    assert {mode(os.path.dirname(path)) for path in (paths.repository, paths.run, paths.log)} == {0o755}


async def test_nobody_else_may_write_in_a_pools_folder(helper, no_umask):
    folders.prepare(helper)
    await dispatch(helper, "Pool.make_folder", {"pool_id": POOL})
    assert mode(f"{helper.paths.repository}/{POOL}") == 0o755


def test_a_file_in_place_of_a_folder_of_the_agents_is_told_by_its_path(helper):
    os.makedirs(os.path.dirname(helper.paths.log))
    with open(helper.paths.log, "w"):
        pass
    with pytest.raises(UnsafeFolder) as e:
        walk.make_for(helper.paths.log, AGENT, AGENT)
    assert e.value.path == helper.paths.log


def test_a_folder_that_is_missing_is_named(top):
    with pytest.raises(FileNotFoundError) as e, walk.trusted(f"{top}/no/such"):
        pass
    assert (e.value.strerror, e.value.filename) == ("No such file or directory", f"{top}/no")


def test_a_file_in_place_of_mnt_is_told_by_its_path(helper):
    os.makedirs(helper.paths.repository)
    with open(helper.paths.mounts, "w"):
        pass
    with pytest.raises(UnsafeFolder) as e:
        walk.make_own(helper.paths.mounts, 0o755)
    assert str(e.value) == f"Root does nothing in {helper.paths.mounts}: it is a symbolic link or no folder"


def test_a_link_of_roots_own_is_left_alone(helper, victim):
    os.makedirs(helper.paths.repository)
    os.symlink(victim, helper.paths.mounts)
    with pytest.raises(UnsafeFolder, match="link"):
        walk.make_own(helper.paths.mounts, 0o755)
    assert os.path.islink(helper.paths.mounts)


def test_a_folder_that_is_somebody_elses_is_not_given_to_the_agent(helper, caplog):
    os.makedirs(helper.paths.log)
    with open(f"{helper.paths.log}/roots", "w"):
        folders.prepare(helper)
    assert owner(helper.paths.log) == 0
    assert f"{helper.paths.log}: it is there and belongs to user 0" in caplog.text
    assert owner(helper.paths.run) == AGENT


def test_a_folder_whose_making_was_cut_off_is_made_by_the_next_start(helper, monkeypatch):
    def dies(fd, uid, gid):
        raise KeyboardInterrupt

    os.makedirs(os.path.dirname(helper.paths.log))
    with monkeypatch.context() as killed:
        killed.setattr(os, "fchown", dies)
        with pytest.raises(KeyboardInterrupt):
            walk.make_for(helper.paths.log, AGENT, AGENT)
    walk.make_for(helper.paths.log, AGENT, AGENT)
    assert owner(helper.paths.log) == AGENT
    assert os.listdir(os.path.dirname(helper.paths.log)) == [os.path.basename(helper.paths.log)]


def _new(path):
    """Where a folder is until it is given away."""
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")


def test_what_the_agent_put_into_a_folder_whose_making_was_cut_off_keeps_no_start_from_it(helper):
    os.makedirs(f"{_new(helper.paths.log)}/filled")
    os.chown(_new(helper.paths.log), AGENT, AGENT)
    walk.make_for(helper.paths.log, AGENT, AGENT)
    assert owner(helper.paths.log) == AGENT
    assert os.listdir(helper.paths.log) == ["filled"]


def test_a_folder_of_roots_under_the_name_of_a_new_one_is_not_given_away(helper):
    os.makedirs(f"{_new(helper.paths.log)}/roots")
    with pytest.raises(UnsafeFolder, match=r"\.new beside it is in the way: Directory not empty"):
        walk.make_for(helper.paths.log, AGENT, AGENT)
    assert owner(_new(helper.paths.log)) == 0
    assert not os.path.exists(helper.paths.log)


# -- the way there


def test_a_link_on_the_way_is_not_followed(top, victim):
    os.symlink(top, f"{top}/way")
    with pytest.raises(UnsafeFolder, match="link"), walk.trusted(f"{top}/way/etc"):
        pass


def test_a_folder_of_another_user_on_the_way_is_not_entered(top, victim):
    os.mkdir(f"{top}/his")
    os.mkdir(f"{top}/his/roots")
    os.chown(f"{top}/his", AGENT, AGENT)
    with pytest.raises(UnsafeFolder, match=f"in {top}/his: it belongs to user 36"), walk.trusted(f"{top}/his/roots"):
        pass


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_folder_that_others_may_write_is_not_entered(top, mode):
    os.mkdir(f"{top}/open")
    os.chmod(f"{top}/open", mode)
    told = rf"in {top}/open: others than root may write in it \(mode {mode:04o}\)"
    with pytest.raises(UnsafeFolder, match=told), walk.trusted(f"{top}/open"):
        pass


def test_sticky_folders_are_entered(top):
    os.mkdir(f"{top}/tmp")
    os.chmod(f"{top}/tmp", 0o1777)
    with walk.trusted(f"{top}/tmp") as fd:
        assert os.path.samestat(os.fstat(fd), os.stat(f"{top}/tmp"))


async def test_nothing_is_mounted_when_mnt_is_the_agents(helper):
    folders.prepare(helper)
    os.chown(helper.paths.mounts, AGENT, AGENT)
    await dispatch(helper, "Mount.define", {"spec": "/no/disk", "vfs_type": "ext4"})
    with pytest.raises(UnsafeFolder, match="user 36"):
        await dispatch(helper, "Mount.mount", {"mount_id": "_no_disk"})


# -- pools' folders and local folders


async def test_a_pool_has_a_folder_for_the_agents_links_and_it_goes_when_it_is_empty(helper):
    folders.prepare(helper)
    await dispatch(helper, "Pool.make_folder", {"pool_id": POOL})
    await dispatch(helper, "Pool.make_folder", {"pool_id": POOL})
    path = f"{helper.paths.repository}/{POOL}"
    assert as_agent("ln", "-s", "/x", f"{path}/mastersd") == 0
    await dispatch(helper, "Pool.remove_folder", {"pool_id": POOL})
    assert os.path.isdir(path)
    os.unlink(f"{path}/mastersd")
    await dispatch(helper, "Pool.remove_folder", {"pool_id": POOL})
    assert not os.path.exists(path)


async def test_what_is_there_already_is_not_given_away_as_a_pools_folder(helper):
    folders.prepare(helper)
    os.mkdir(f"{helper.paths.repository}/{POOL}")
    told = f"{helper.paths.repository}/{POOL}: it is there and belongs to user 0, expected 36"
    with pytest.raises(UnsafeFolder, match=told):
        await dispatch(helper, "Pool.make_folder", {"pool_id": POOL})
    assert owner(f"{helper.paths.repository}/{POOL}") == 0


@pytest.mark.parametrize("pool_id", ["mnt", "..", "", f"mnt/{POOL}", f"../{POOL}"])
async def test_a_pools_folder_is_named_by_its_id_alone(helper, pool_id):
    folders.prepare(helper)
    for verb in ("Pool.make_folder", "Pool.remove_folder"):
        with pytest.raises(InvalidParameter, match="pool_id"):
            await dispatch(helper, verb, {"pool_id": pool_id})
    assert owner(helper.paths.mounts) == 0


async def test_a_local_folder_has_a_link_in_mnt_until_it_is_taken_away(helper):
    folders.prepare(helper)
    answer = await dispatch(helper, "LocalFolder.link", {"folder": "/srv/a_b/"})
    assert answer == {"path": f"{helper.paths.mounts}/_srv_a__b"}
    assert os.readlink(answer["path"]) == "/srv/a_b"
    await dispatch(helper, "LocalFolder.unlink", {"folder": "/srv/a_b"})
    assert os.listdir(helper.paths.mounts) == []


async def test_a_link_does_not_take_the_place_of_a_mount(helper):
    folders.prepare(helper)
    os.mkdir(f"{helper.paths.mounts}/_srv_disk.img")
    with pytest.raises(folders.PlaceTaken):
        await dispatch(helper, "LocalFolder.link", {"folder": "/srv/disk.img"})
    await dispatch(helper, "LocalFolder.unlink", {"folder": "/srv/disk.img"})
    assert os.listdir(helper.paths.mounts) == ["_srv_disk.img"]


async def test_a_link_that_leads_nowhere_is_replaced_and_taken_away(helper):
    folders.prepare(helper)
    path = f"{helper.paths.mounts}/_srv_x"
    os.symlink("/no/such", path)
    await dispatch(helper, "LocalFolder.link", {"folder": "/srv/x"})
    assert os.readlink(path) == "/srv/x"
    await dispatch(helper, "LocalFolder.unlink", {"folder": "/srv/x"})
    assert os.listdir(helper.paths.mounts) == []


async def test_a_link_to_a_folder_that_is_there_can_be_made_again_and_taken_away(helper, victim):
    folders.prepare(helper)
    for _ in range(2):
        path = (await dispatch(helper, "LocalFolder.link", {"folder": victim}))["path"]
    assert os.readlink(path) == victim
    await dispatch(helper, "LocalFolder.unlink", {"folder": victim})
    assert os.listdir(helper.paths.mounts) == []
    assert os.path.isdir(victim)


@pytest.mark.parametrize("folder", ["", "/", "x/y", "/..", "/a\nb", "/" + "x" * 300])
async def test_what_is_no_local_folder_gets_no_link(helper, folder):
    folders.prepare(helper)
    with pytest.raises(InvalidParameter, match="folder"):
        await dispatch(helper, "LocalFolder.link", {"folder": folder})


# -- secrets


MARK = "hunter2!x"


@pytest.fixture
def slot(top):
    os.mkdir(f"{top}/slot")
    return Slot(f"{top}/slot", -1)


@pytest.mark.parametrize(
    ("vfs_type", "option", "file", "text"),
    [
        ("cifs", "password", "credentials", f"password={MARK}\n"),
        ("smb3", "pass", "credentials", f"password={MARK}\n"),
        ("ceph", "secret", "secretfile", MARK),
    ],
)
async def test_a_secret_option_goes_by_file_and_is_not_on_record(helper, slot, vfs_type, option, file, text):
    params = {"spec": "srv:/x", "vfs_type": vfs_type, "options": f"ro,{option}={MARK}"}
    await dispatch(helper, "Mount.define", params)
    with open(f"{helper.paths.root_state}/mounts/srv:_x.json") as f:
        record = json.load(f)
    assert MARK not in json.dumps(record) + json.dumps(await dispatch(helper, "Mount.list", {})) + repr(helper)
    given = mount_secrets.for_program(vfs_type, record["options"], helper.secrets["srv:_x"], slot)
    assert given == ["ro", "nosuid", "nodev", f"{file}={slot.path}/{file}"]
    with open(f"{slot.path}/{file}") as f:
        assert f.read() == text
    assert stat.S_IMODE(os.stat(f"{slot.path}/{file}").st_mode) == 0o600


async def test_after_a_restart_a_secret_is_asked_for_again(helper):
    folders.prepare(helper)
    await dispatch(helper, "Mount.define", {"spec": "srv:/x", "vfs_type": "cifs", "options": f"password={MARK}"})
    again = Helper(helper.paths, AGENT, AGENT)
    with pytest.raises(mount_secrets.SecretNotKept):
        await dispatch(again, "Mount.mount", {"mount_id": "srv:_x"})


@pytest.mark.parametrize(
    ("vfs_type", "options"),
    [
        ("nfs", f"password={MARK}"),
        ("ext4", f"token={MARK}"),
        ("cifs", f"username=a%{MARK}"),
        ("cifs", f"password={MARK}\nx=y"),
        ("cifs", f"bind={MARK}"),
    ],
)
async def test_a_refused_option_is_named_without_its_value(helper, vfs_type, options):
    with pytest.raises(InvalidParameter, match="'options'") as e:
        await dispatch(helper, "Mount.define", {"spec": "srv:/x", "vfs_type": vfs_type, "options": options})
    assert MARK not in str(e.value)


@pytest.fixture
def etc(top, victim, monkeypatch):
    monkeypatch.setattr(mount_secrets, "ALLOWED", f"{victim}/")
    return victim


def write(path, text):
    with open(path, "w") as f:
        f.write(text)
    return path


async def test_a_file_with_credentials_is_copied_for_the_mounts_program(etc, slot):
    file = write(f"{etc}/share", "# ours\nusername=a\npassword=b\n")
    given = mount_secrets.for_program("cifs", [f"credentials={file}", "ro"], {}, slot)
    assert given == ["ro", f"credentials={slot.path}/credentials"]
    with open(f"{slot.path}/credentials") as f:
        assert f.read() == "# ours\nusername=a\npassword=b\n"


@pytest.mark.parametrize("end", ["", "\n"])
def test_two_files_of_credentials_are_one_for_the_mounts_program(etc, slot, end):
    names, words = write(f"{etc}/names", f"username=a{end}"), write(f"{etc}/words", f"password=ü=b{end}")
    mount_secrets.for_program("cifs", [f"cred={names}", f"credentials={words}"], {}, slot)
    with open(f"{slot.path}/credentials", encoding="utf-8") as f:
        assert f.read() == "username=a\npassword=ü=b\n"


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_file_with_a_key_is_copied_as_it_is(etc, slot, end):
    key = write(f"{etc}/key", f"AQDGm1ZhAAAAABAAhOFeU5AZIsVqS1Fr4qzVYg=={end}")
    given = mount_secrets.for_program("ceph", ["name=a", f"secretfile={key}"], {}, slot)
    assert given == ["name=a", f"secretfile={slot.path}/secretfile"]
    with open(f"{slot.path}/secretfile") as copy, open(key) as f:
        assert copy.read() == f.read()


def test_the_most_of_a_file_that_is_read(etc, slot):
    write(f"{etc}/long", "#" * 5000)
    mount_secrets.for_program("cifs", [f"cred={etc}/long"], {}, slot)
    assert os.path.getsize(f"{slot.path}/credentials") == 4097  # and the line's end


@pytest.mark.parametrize("content", [b"\xff\xfe", b"password", b"x=password=y\n"])
def test_bytes_that_are_no_credentials_are_told_as_such(etc, slot, content):
    with open(f"{etc}/share", "wb") as f:
        f.write(content)
    with pytest.raises(mount_secrets.NoSecretFile, match="content is not what smb3 expects") as e:
        mount_secrets.for_program("smb3", [f"cred={etc}/share"], {}, slot)
    assert e.value.file == f"{etc}/share"


def test_a_file_of_credentials_that_is_missing_is_named(etc, slot):
    with pytest.raises(mount_secrets.NoSecretFile) as e:
        mount_secrets.for_program("cifs", [f"cred={etc}/no"], {}, slot)
    assert (e.value.file, e.value.reason) == (f"{etc}/no", "No such file or directory")


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_of_credentials_that_others_may_write_is_named(etc, slot, mode):
    file = write(f"{etc}/share", "password=b\n")
    os.chmod(file, mode)
    with pytest.raises(mount_secrets.NoSecretFile, match="nobody else") as e:
        mount_secrets.for_program("cifs", [f"credentials={file}"], {}, slot)
    assert e.value.file == file


def test_a_fifo_is_no_file_of_credentials(etc, slot):
    os.mkfifo(f"{etc}/share", 0o600)
    with pytest.raises(mount_secrets.NoSecretFile, match="no regular file"):
        mount_secrets.for_program("cifs", [f"credentials={etc}/share"], {}, slot)


def test_a_file_of_credentials_that_everybody_may_read_is_the_administrators_matter(etc, slot):
    os.chmod(write(f"{etc}/share", "password=b\n"), 0o644)
    mount_secrets.for_program("cifs", [f"credentials={etc}/share"], {}, slot)


def test_a_file_that_is_no_file_of_credentials_is_not_read_out(etc, slot):
    shadow = write(f"{etc}/shadow", f"root:$6${MARK}:19000::\n")
    for vfs_type, option in (("cifs", "credentials"), ("cifs", "cred"), ("ceph", "secretfile")):
        with pytest.raises(mount_secrets.NoSecretFile, match="content") as e:
            mount_secrets.for_program(vfs_type, [f"{option}={shadow}"], {}, slot)
        assert MARK not in str(e.value)


def test_a_file_that_is_not_roots_alone_is_no_file_of_credentials(etc, slot):
    file = write(f"{etc}/share", "password=b\n")
    os.chmod(file, 0o666)
    with pytest.raises(mount_secrets.NoSecretFile, match="nobody else"):
        mount_secrets.for_program("cifs", [f"credentials={file}"], {}, slot)
    os.chmod(file, 0o600)
    os.chown(file, AGENT, AGENT)
    with pytest.raises(mount_secrets.NoSecretFile, match="nobody else"):
        mount_secrets.for_program("cifs", [f"credentials={file}"], {}, slot)
    os.symlink(write(f"{etc}/good", "password=b\n"), f"{etc}/link")
    with pytest.raises(mount_secrets.NoSecretFile):
        mount_secrets.for_program("cifs", [f"credentials={etc}/link"], {}, slot)


@pytest.mark.parametrize("file", ["/tmp/x", "/etc/../tmp/x", "relative"])
def test_a_file_of_credentials_lies_below_etc(slot, file):
    with pytest.raises(mount_secrets.NoSecretFile, match=f"^{file} is not used for a mount: it is not below /etc/"):
        mount_secrets.for_program("cifs", [f"credentials={file}"], {}, slot)


# -- hook scripts


@pytest.mark.parametrize("target", ["/his/link", "/his/../his/link"])
def test_a_script_that_is_reached_through_a_folder_of_the_agents_does_not_run_as_root(top, target):
    for folder in ("hooks", "his", "good"):
        os.mkdir(f"{top}/{folder}")
    os.chmod(os.open(f"{top}/good/script", os.O_CREAT), 0o755)
    os.symlink(f"{top}/good/script", f"{top}/his/link")
    os.symlink(f"{top}{target}", f"{top}/hooks/50_script")
    assert trust_of(0).objection(f"{top}/hooks/50_script") == ""
    os.chown(f"{top}/his", AGENT, AGENT)
    assert f"{top}/his belongs to user 36" in trust_of(0).objection(f"{top}/hooks/50_script")


# -- the socket


async def test_a_user_of_the_agents_group_is_no_caller(helper, monkeypatch):
    monkeypatch.setattr(root.verbs, "recover", _nothing)
    monkeypatch.setattr(root.groups, "set_folder", lambda folder: None)  # that is for the whole process
    os.chmod(helper.paths.root_run, 0o755)
    serving = asyncio.ensure_future(root.serve(helper))
    while not os.path.exists(helper.paths.root_socket):
        await asyncio.sleep(0.01)
    ask = (
        "import socket,sys,struct\n"
        "s=socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1])\n"
        "print(len(s.recv(1)))\n"
    )
    argv = ["setpriv", "--reuid=65534", f"--regid={AGENT}", "--clear-groups", sys.executable, "-I", "-c", ask]
    asked = await asyncio.create_subprocess_exec(*argv, helper.paths.root_socket, stdout=asyncio.subprocess.PIPE)
    out, _ = await asked.communicate()
    assert out == b"0\n"  # closed at once
    assert stat.S_IMODE(os.stat(helper.paths.root_socket).st_mode) == 0o660
    os.kill(os.getpid(), 15)
    await serving


async def _nothing(helper):
    return
