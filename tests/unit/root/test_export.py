# SPDX-License-Identifier: GPL-2.0-or-later
"""An export is looked at by using it; what is refused says what its server has to change."""

import errno
import json
import os
import subprocess
import sys

import pytest

from vdsm.root.server import export_look, export_verdict, mounts
from vdsm.root.server.export_verdict import Look
from vdsm.root.server.mount_errors import ExportAccessRefused, MountNoDirectIo, MountUnfit
from vdsm.root.server.registry import dispatch

OURS = (36, 36, 0o755)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")


def judged(step, number, owner=OURS, made=(36, 36)):
    return export_verdict.refusal(Look(owner, made, (step, number)), "/mnt/x", 36, 36)


# The verdict


def test_an_export_on_which_all_works_is_taken():
    assert export_verdict.refusal(Look(OURS, (36, 36), None), "/mnt/x", 36, 36) is None


@pytest.mark.parametrize("step", ["create", "write"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_export_is_taken_and_said_to_be_full(step, number):
    assert judged(step, number) is None
    assert "it is full" in export_verdict.notes(Look(OURS, None, (step, number)), 36, 36, root_is_squashed=True)


@pytest.mark.parametrize(
    ("owner", "todo"),
    [
        ((0, 0, 0o755), "chown 36:36 and chmod 0755 the exported folder (it belongs to 0:0 with mode 0755)"),
        ((36, 36, 0o555), "chown 36:36 and chmod 0755 the exported folder (it belongs to 36:36 with mode 0555)"),
        (OURS, "no all_squash in its exports, or anonuid=36,anongid=36"),
        (None, "chown 36:36 and chmod 0755 the exported folder, and let others enter what is above it"),
    ],
)
def test_an_export_that_cannot_be_written_says_what_its_owner_has_to_do(owner, todo):
    refused = judged("create", errno.EACCES, owner)
    assert isinstance(refused, ExportAccessRefused)
    assert f"user 36:36 cannot write it; on the server: {todo}" in str(refused)


def test_one_that_cannot_be_entered_is_told_as_such():
    assert "cannot enter it" in str(judged("enter", errno.EACCES, None))


@pytest.mark.parametrize("step", ["create", "write", "remove"])
def test_a_read_only_export_is_told_as_such(step):
    refused = judged(step, errno.EROFS)
    assert isinstance(refused, ExportAccessRefused)
    assert "exports line needs rw" in str(refused)


@pytest.mark.parametrize("step", ["direct", "write"])
def test_one_that_refuses_direct_io_has_an_error_of_its_own(step):
    assert isinstance(judged(step, errno.EINVAL), MountNoDirectIo)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES])
def test_locks_that_are_refused_say_which_services_lack(number):
    refused = judged("lock", number)
    assert isinstance(refused, MountUnfit)
    assert "lockd and statd" in str(refused)


def test_an_export_that_was_replaced_is_to_be_exported_again():
    assert "exportfs -ra" in str(judged("enter", errno.ESTALE))


def test_another_error_is_told_with_its_step():
    assert "step 'read'" in str(judged("read", errno.EIO)) and "Input/output error" in str(judged("read", errno.EIO))
    assert "not what was written" in str(judged("read", 0))


def test_users_that_the_server_maps_and_root_that_it_does_not_are_told():
    said = export_verdict.notes(Look(OURS, (65534, 65534), None), 36, 36, root_is_squashed=False)
    assert len(said) == 2
    assert "belong to 65534:65534" in said[0] and "no_root_squash" in said[1]
    assert export_verdict.notes(Look(OURS, (36, 36), None), 36, 36, root_is_squashed=True) == []


def test_of_a_folder_that_all_may_write_it_is_not_known_what_root_is():
    assert export_verdict.notes(Look((36, 36, 0o1777), (36, 36), None), 36, 36, root_is_squashed=False) == []


# The look


def test_a_folder_that_works_is_as_it_was_after_the_look(tmp_path):
    tmp_path.chmod(0o750)
    found = export_look.look(str(tmp_path))
    assert found == {"owner": [os.getuid(), os.getgid(), 0o750], "made": [os.getuid(), os.getgid()], "failed": None}
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("call", "step"), [("lockf", "lock"), ("pwritev", "write"), ("preadv", "read"), ("fstat", "create")]
)
def test_a_step_that_fails_is_told_and_nothing_is_left(tmp_path, monkeypatch, call, step):
    def fails(*_args):
        raise OSError(errno.ESTALE, "stale")

    monkeypatch.setattr(export_look.fcntl if call == "lockf" else export_look.os, call, fails)
    assert export_look.look(str(tmp_path))["failed"] == [step, errno.ESTALE]
    assert os.listdir(tmp_path) == []


def test_content_that_comes_back_changed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(export_look.os, "pwritev", lambda fd, blocks, offset: 0)
    assert export_look.look(str(tmp_path))["failed"] == ["read", 0]


def test_what_is_not_there_is_told_by_the_program_as_json(tmp_path):
    argv = [sys.executable, "-I", "-S", export_look.__file__, str(tmp_path / "none")]
    told = subprocess.run(argv, check=True, capture_output=True).stdout
    assert json.loads(told) == {"owner": None, "made": None, "failed": ["enter", errno.ENOENT]}


# Both, as root's verbs use them


async def mounted(helper, program, options):
    program.options = options
    program.write()
    await dispatch(helper, "Mount.define", {"spec": "srv:/x", "vfs_type": "nfs", "options": "soft"})
    return await dispatch(helper, "Mount.mount", {"mount_id": "srv:_x"})


def nothing_stays(helper):
    return os.listdir(helper.paths.mounts) == os.listdir(helper.paths.root_staging) == []


@as_root
async def test_an_export_of_the_agents_is_mounted_with_nothing_left_on_it(helper, program):
    answer = await mounted(helper, program, "mode=0755,uid=36,gid=36")
    assert answer["mounted"] and answer["notes"] == ["root of this host may change all files there (no_root_squash)"]
    assert os.listdir(answer["path"]) == []


@as_root
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("mode=0755,uid=0,gid=0", "chown 36:36 and chmod 0755 the exported folder (it belongs to 0:0 with mode 0755)"),
        ("ro,mode=0755,uid=36,gid=36", "exports line needs rw"),
        ("mode=0700,uid=1,gid=1", "it belongs to 1:1 with mode 0700"),
    ],
)
async def test_an_export_that_the_agent_cannot_use_is_not_left_mounted(helper, program, options, said):
    with pytest.raises(ExportAccessRefused) as e:
        await mounted(helper, program, options)
    assert said in str(e.value)
    assert nothing_stays(helper)


@as_root
async def test_a_full_export_is_mounted(helper, program):
    answer = await mounted(helper, program, "mode=0755,uid=36,gid=36,nr_inodes=1")
    assert "it is full" in answer["notes"]


@as_root
async def test_a_look_that_tells_nonsense_is_a_refusal(helper, program, monkeypatch, own_folder):
    script = f"{own_folder}/look.py"
    with open(script, "w") as f:
        f.write("print('{\"owner\": 1}')")
    monkeypatch.setattr(export_look, "__file__", script)
    with pytest.raises(MountUnfit, match="told nothing that can be read"):
        await mounted(helper, program, "mode=0755,uid=36,gid=36")
    assert nothing_stays(helper)


@as_root
async def test_a_look_without_an_end_says_what_may_keep_it(helper, program, monkeypatch, own_folder):
    script = f"{own_folder}/look.py"
    with open(script, "w") as f:
        f.write("import time; time.sleep(60)")
    monkeypatch.setattr(export_look, "__file__", script)
    monkeypatch.setattr(mounts, "CHECK_S", 0.2)
    with pytest.raises(MountUnfit, match=r"did not end within 0 s; .*grace time"):
        await mounted(helper, program, "mode=0755,uid=36,gid=36")
    assert nothing_stays(helper)
