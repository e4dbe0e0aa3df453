# SPDX-License-Identifier: GPL-2.0-or-later
"""One process of a kind: who holds the lock, who is told, and when it is free again."""

import os
import subprocess
import sys
import textwrap

import pytest

from vdsm.common import single
from vdsm.common.paths import Paths


@pytest.fixture
def file(tmp_path):
    return str(tmp_path / "it.lock")


@pytest.fixture
def holder(file):
    """Another process that holds it."""
    code = f"from vdsm.common import single; single.hold({file!r}, 'It'); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_one_is_told_who_runs(file, holder):
    with pytest.raises(single.AlreadyRuns, match=f"It runs already: process {holder.pid} holds {file}"):
        single.hold(file, "It")


def test_the_lock_ends_with_its_holder_however_that_ends(file, holder):
    holder.kill()
    holder.wait()
    os.close(single.hold(file, "It"))


def test_a_file_that_was_left_locks_nobody_out(file):
    with open(file, "w") as f:
        f.write("1\n")
    os.close(single.hold(file, "It"))
    with open(file) as f:
        assert f.read() == f"{os.getpid()}\n"


def test_one_that_is_about_to_end_is_waited_for(file, holder):
    holder.stdin.write("\n")
    holder.stdin.flush()
    os.close(single.hold(file, "It", wait_s=10))


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_on_the_new_one(file, monkeypatch):
    real = single.fcntl.flock

    def removed(fd, how):
        if os.path.exists(f"{file}.once"):
            os.unlink(f"{file}.once")
            os.unlink(file)
        real(fd, how)

    with open(f"{file}.once", "w"):
        pass
    monkeypatch.setattr(single.fcntl, "flock", removed)
    fd = single.hold(file, "It")
    assert os.path.samestat(os.fstat(fd), os.stat(file))
    os.close(fd)


def test_a_link_in_its_place_is_not_followed(file, tmp_path):
    os.symlink(tmp_path / "elsewhere", file)
    with pytest.raises(OSError, match="symbolic links"):
        single.hold(file, "It")
    assert not (tmp_path / "elsewhere").exists()


AGENT = textwrap.dedent(
    """
    import sys
    from vdsm import agent
    from vdsm.common.paths import Paths
    top = sys.argv[1]
    agent.main(Paths(repository=top + "/r", run=top, state=top, etc=top, usr_lib=top, log=top, root_run=top))
    """
)


def agent(top):
    return subprocess.run(
        [sys.executable, "-c", AGENT, str(top)], check=False, capture_output=True, text=True, timeout=60
    )


def test_a_second_agent_touches_nothing(tmp_path):
    paths = Paths(run=str(tmp_path))
    os.mkdir(paths.commands)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        with open(f"{paths.commands}/{child.pid}", "w") as record, open(f"/proc/{child.pid}/stat") as stat:
            record.write(stat.read().rpartition(")")[2].split()[19] + "\n")
        fd = single.hold(paths.agent_lock, "The agent")
        try:
            second = agent(tmp_path)
        finally:
            os.close(fd)
        assert second.returncode == single.CODE == 75
        assert second.stderr.count("\n") == 1
        assert f"process {os.getpid()} holds" in second.stderr
        assert child.poll() is None
        assert os.listdir(paths.commands) == [str(child.pid)]
        child.kill()


def test_a_second_spm_process_says_who_runs_before_it_is_asked_for_anything(tmp_path):
    lock = str(tmp_path / "spm.lock")
    fd = single.hold(lock, "The SPM process")
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "storage.spm", "spm", "99"],
            input=f'{{"locks": {{"spm": "{lock}"}}, "about": "", "commands": "{tmp_path}/commands"}}\n',
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(fd)
    assert ended.returncode == single.CODE
    assert f"process {os.getpid()} holds {lock}" in ended.stderr
    assert not os.path.exists(tmp_path / "commands")


def test_a_start_that_fails_by_a_defect_says_so(tmp_path):
    code = AGENT.replace("top = ", "agent.build = lambda *_: 1 // 0\ntop = ")
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "the agent could not start" in ended.stderr
    assert "ZeroDivisionError" in ended.stderr


def test_a_start_that_fails_by_the_host_says_why_in_a_line(tmp_path):
    broken = "def broken(*_): raise PermissionError(13, 'Permission denied', '/x')\nagent.build = broken\ntop = "
    code = AGENT.replace("top = ", broken)
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert "the agent could not start: [Errno 13] Permission denied: '/x'" in ended.stderr
