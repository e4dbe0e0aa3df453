# SPDX-License-Identifier: GPL-2.0-or-later
import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from vdsm.common import commands, groups
from vdsm.common.errors import CommandFailed, CommandNotFound, DeadlineExceeded, OutputTooLong


async def test_output_of_both_streams_is_returned():
    done = await commands.run(["sh", "-c", "echo out; echo err >&2"], timeout_s=5)
    assert (done.out, done.err) == (b"out\n", b"err\n")


async def test_input_reaches_the_command():
    done = await commands.run(["cat"], timeout_s=5, stdin=b"x" * 300_000)
    assert done.out == b"x" * 300_000


async def test_failure_names_command_code_and_stderr():
    with pytest.raises(CommandFailed, match=r"'sh -c .*' failed with code 3: broken") as e:
        await commands.run(["sh", "-c", "echo broken >&2; exit 3"], timeout_s=5)
    assert e.value.code == 3


async def test_secrets_are_never_shown():
    with pytest.raises(CommandFailed) as e:
        await commands.run(["sh", "-c", 'echo "$0" >&2; exit 1', commands.Secret("hunter2")], timeout_s=5)
    assert "hunter2" not in str(e.value)
    assert str(e.value).count("****") == 2


async def test_what_looks_like_a_secret_is_not_shown_either():
    with pytest.raises(CommandFailed) as e:
        await commands.run(["sh", "-c", "echo password=hunter2 >&2; exit 1", "secret=hunter2"], timeout_s=5)
    assert "hunter2" not in str(e.value)


def test_no_text_is_made_of_a_secret_argument():
    assert "hunter2" not in f"{commands.Secret('hunter2')} {commands.Secret('hunter2')!r}"


async def test_missing_command_says_so():
    with pytest.raises(CommandNotFound, match="no-such-command-here"):
        await commands.run(["no-such-command-here"], timeout_s=5)


async def test_deadline_kills_the_whole_group(tmp_path):
    pids = tmp_path / "pids"
    with pytest.raises(DeadlineExceeded):
        await commands.run(["sh", "-c", f"sleep 60 & echo $! $$ > {pids}; wait"], timeout_s=0.5)
    await _all_gone([int(pid) for pid in pids.read_text().split()])


async def test_cancel_kills_the_whole_group(tmp_path):
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    task = asyncio.ensure_future(commands.run(["sh", "-c", f"sleep 60 & echo $! $$ > {pids}; wait"], timeout_s=30))
    text = await asyncio.to_thread(pids.read_text)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _all_gone([int(pid) for pid in text.split()])


async def test_cancel_in_the_midst_of_a_start_kills_the_whole_group(tmp_path, monkeypatch):
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    loop, release = asyncio.get_running_loop(), asyncio.Event()
    start = loop.subprocess_exec

    async def held(*arguments, **options):
        made = await start(*arguments, **options)
        await release.wait()
        return made

    monkeypatch.setattr(loop, "subprocess_exec", held)
    task = asyncio.ensure_future(commands.run(["sh", "-c", f"sleep 60 & echo $! $$ > {pids}; wait"], timeout_s=30))
    text = await asyncio.to_thread(pids.read_text)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    release.set()
    await _all_gone([int(pid) for pid in text.split()])


async def test_too_much_output_is_refused():
    with pytest.raises(OutputTooLong, match="more than 1000 bytes"):
        await commands.run(["sh", "-c", "yes"], timeout_s=5, max_output=1000)


async def test_left_over_child_does_not_hold_the_result():
    started = asyncio.get_running_loop().time()
    done = await commands.run(["sh", "-c", "sleep 60 & echo done"], timeout_s=30)
    assert done.out == b"done\n"
    assert asyncio.get_running_loop().time() - started < 5


async def test_environment_is_only_what_is_given(monkeypatch):
    monkeypatch.setenv("LEAK", "yes")
    done = await commands.run(["env"], timeout_s=5, env={"PATH": commands.PATH, "GIVEN": "1"})
    assert b"LEAK" not in done.out
    assert b"GIVEN=1" in done.out


def test_child_dies_with_a_killed_agent_and_its_group_at_the_next_start(tmp_path):
    script = textwrap.dedent(f"""
        import asyncio
        from vdsm.common import commands, groups
        groups.set_folder({str(tmp_path / "commands")!r})
        asyncio.run(commands.run(["sh", "-c", "sleep 60 & echo $! $$ > {tmp_path}/pids.new;"
            "mv {tmp_path}/pids.new {tmp_path}/pids; wait"], timeout_s=50))
    """)
    agent = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 10
    while not ((tmp_path / "pids").exists() and any(name.isdigit() for name in os.listdir(tmp_path / "commands"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    grandchild, child = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    agent.kill()
    agent.wait()
    assert groups.kill_recorded(str(tmp_path / "commands")) == [child]
    assert groups.members(child) == []
    assert groups.start_time(grandchild) is None or grandchild not in groups.members(child)
    assert os.listdir(tmp_path / "commands") == []


def test_recorded_id_of_a_stranger_is_left_alone(tmp_path):
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (tmp_path / str(stranger.pid)).write_text("12345\n")
        assert groups.kill_recorded(str(tmp_path)) == []
        assert stranger.poll() is None
    finally:
        stranger.send_signal(signal.SIGKILL)
        stranger.wait()


@pytest.mark.parametrize(
    ("how", "recorded"), [({"process_group": 0}, 0), ({"start_new_session": True}, 10**15)], ids=["session", "age"]
)
def test_a_group_without_its_leader_that_is_not_the_recorded_one_is_left_alone(tmp_path, how, recorded):
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, **how)
    stranger = int(leader.stdout.readline())
    leader.stdout.close()
    leader.wait()
    try:
        (tmp_path / str(leader.pid)).write_text(f"{recorded}\n")
        assert groups.kill_recorded(str(tmp_path)) == []
        assert _running(stranger)
    finally:
        os.kill(stranger, signal.SIGKILL)


async def _all_gone(pids):
    async with asyncio.timeout(5):
        for pid in pids:
            while _running(pid):
                await asyncio.sleep(0.01)


def _running(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
