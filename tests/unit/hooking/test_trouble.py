# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts that hang, crash, break things, or that others could have written."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vdsm.common import commands, groups
from vdsm.hooking import trace
from vdsm.hooking.contents import MAX_BYTES
from vdsm.hooking.document import Document
from vdsm.hooking.dry_run import TriedVm
from vdsm.hooking.errors import HookFailed, HooksNotRun
from vdsm.hooking.service import Hooks

VM_ID = "5a3b1c5e-7b0c-4b56-9d36-0f2f4b7f0a01"
DOMAIN = f"<domain type='qemu'>\n<name>web</name>\n<uuid>{VM_ID}</uuid>\n<memory>1024</memory>\n</domain>"


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


async def until(condition, seconds=3.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        await asyncio.sleep(0.01)


async def test_a_script_that_cannot_be_killed_is_given_up_and_on_record_until_it_ends(
    paths, install, tmp_path, monkeypatch
):
    records = tmp_path / "groups"
    records.mkdir()
    monkeypatch.setattr(groups, "_folder", str(records))
    monkeypatch.setattr(groups, "kill_group", lambda pgid: None)  # as one that waits in the kernel
    monkeypatch.setattr(commands, "DEATH_S", 0.1)
    install("before_vm_start", "50_hang", "exec sleep 1000")
    hooks = Hooks(paths=paths, timeouts_s={"before_vm_start": 0.3})
    with pytest.raises(HookFailed, match="before_vm_start/50_hang did not end"):
        await asyncio.wait_for(hooks.run_xml("before_vm_start", DOMAIN), 5)
    [pid] = os.listdir(records)
    os.kill(int(pid), signal.SIGKILL)
    await until(lambda: not os.listdir(records))
    await asyncio.sleep(0)  # its pipe is closed


async def test_a_hang_is_killed_with_its_children_and_named(paths, install, tmp_path):
    install("before_vm_start", "50_hang", f"echo waiting for a lock >&2; sleep 1000 & echo $! > {tmp_path}/pid; wait")
    hooks = Hooks(paths=paths, timeouts_s={"before_vm_start": 0.5})
    started = time.monotonic()
    with pytest.raises(HookFailed) as failure:
        await hooks.run_xml("before_vm_start", DOMAIN)
    assert time.monotonic() - started < 2
    expected = "before_vm_start/50_hang did not end within 0.5 s and was killed (exit code -9): waiting for a lock"
    assert expected in str(failure.value)
    assert failure.value.code == -9
    await until(lambda: gone(int((tmp_path / "pid").read_text())))


async def test_one_scripts_limit(paths, install):
    install("after_vm_start", "10_hang", "exec sleep 1000")
    install("after_vm_start", "20_fine", "exit 0")
    hooks = Hooks(paths=paths, timeouts_s={"after_vm_start/10_hang": 0.2})
    await hooks.run_xml("after_vm_start", DOMAIN)
    (record,) = trace.read(trace.folder_of(paths))
    assert [(s.script, str(s.result)) for s in record.scripts] == [("10_hang", "timed out"), ("20_fine", "done")]


async def test_a_later_script_that_used_up_the_points_time_says_so(paths, install):
    install("after_vm_start", "10_short", "sleep 0.1")
    install("after_vm_start", "20_hang", "exec sleep 1000")
    await Hooks(paths=paths, timeouts_s={"after_vm_start": 0.5}).run_xml("after_vm_start", DOMAIN)
    (record,) = trace.read(trace.folder_of(paths))
    assert "s that were left of its point's 0.5 s and was killed" in record.scripts[1].reason


async def test_a_point_whose_time_is_used_up_runs_no_more(paths, install, tmp_path):
    install("after_vm_start", "10_hang", "exec sleep 1000")
    install("after_vm_start", "20_late", f"touch {tmp_path}/ran")
    await Hooks(paths=paths, timeouts_s={"after_vm_start": 0.2}).run_xml("after_vm_start", DOMAIN)
    (record,) = trace.read(trace.folder_of(paths))
    assert record.scripts[1].reason == "was not run: the point's 0.2 s were used up"
    assert not (tmp_path / "ran").exists()


async def test_the_caller_who_goes_away_takes_the_script_along(hooks, install, tmp_path):
    install("before_vm_start", "10", f"sleep 1000 & echo $$ $! > {tmp_path}/p; mv {tmp_path}/p {tmp_path}/pids; wait")
    run = asyncio.create_task(hooks.run_xml("before_vm_start", DOMAIN))
    await until((tmp_path / "pids").exists)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    for pid in (tmp_path / "pids").read_text().split():
        await until(lambda pid=pid: gone(int(pid)))


async def test_a_daemon_that_holds_the_pipe_delays_by_a_second_and_lives(hooks, install, tmp_path):
    install("before_vm_start", "10", f"setsid sleep 60 & echo $! > {tmp_path}/pid; echo done >&2")
    started = time.monotonic()
    await hooks.run_xml("before_vm_start", DOMAIN)
    assert time.monotonic() - started < 2.5
    pid = int((tmp_path / "pid").read_text())
    assert not gone(pid), "what a script left running on purpose goes on"
    os.kill(pid, 9)


async def test_huge_stderr_is_bounded(hooks, install, paths):
    install("before_vm_start", "10", "echo begin >&2; yes | head -c 20000000 >&2; echo end >&2; exit 1")
    with pytest.raises(HookFailed, match="exit code 1: begin"):
        await hooks.run_xml("before_vm_start", DOMAIN)
    (record,) = trace.read(trace.folder_of(paths))
    script = record.scripts[0]
    assert script.stderr_bytes == 20_000_010
    assert len(script.stderr) < 7000
    assert script.stderr.endswith("end\n")


async def test_stderr_that_is_no_text(hooks, install):
    install("before_vm_start", "10", r"printf '\377\376bad\000' >&2; exit 1")
    with pytest.raises(HookFailed, match="bad"):
        await hooks.run_xml("before_vm_start", DOMAIN)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('printf "<domain>" > "$_hook_domxml"', "left XML that can't be used: it is not valid XML"),
        (': > "$_hook_domxml"', "left XML that can't be used"),
        ("sed -i s/web/other/ $_hook_domxml", "left a domain XML with another name ('other' instead of 'web')"),
        ("sed -i s/5a3b/6a3b/ $_hook_domxml", "left a domain XML with another uuid ('6a3b"),
        ('printf "<network/>" > "$_hook_domxml"', "root element is <network> instead of <domain>"),
        ("printf '\\377' > $_hook_domxml", "left a document that is not UTF-8"),
        ("rm $_hook_domxml", "left no readable document"),
        ("rm $_hook_domxml; mkfifo $_hook_domxml", "left something that is no regular file"),
        ("rm $_hook_domxml; ln -s /etc/passwd $_hook_domxml", "left no readable document"),
        (f"truncate -s {MAX_BYTES + 1} $_hook_domxml", f"left a document of more than {MAX_BYTES} bytes"),
        (
            "printf '<!DOCTYPE d [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><domain>&a;</domain>' > $_hook_domxml",
            "document type declaration",
        ),
    ],
)
async def test_broken_xml_names_the_script_that_broke_it(hooks, install, tmp_path, body, complaint):
    install("before_vm_start", "10_good", "exit 0")
    install("before_vm_start", "20_breaks", f"echo oops >&2; {body}; exit 0")
    install("before_vm_start", "30_later", f"touch {tmp_path}/ran")
    with pytest.raises(HookFailed) as failure:
        await hooks.run_xml("before_vm_start", DOMAIN)
    text = str(failure.value)
    assert "before_vm_start/20_breaks ended with exit code 0 and left" in text
    assert complaint in text
    assert text.endswith(": oops")
    assert not (tmp_path / "ran").exists()


async def test_a_device_keeps_its_kind(hooks, install):
    install("before_nic_hotplug", "10", "printf '<disk/>' > $_hook_domxml")
    with pytest.raises(HookFailed, match=r"root element is <disk> instead of <interface>"):
        await hooks.run_xml("before_nic_hotplug", "<interface type='bridge'/>")


async def test_broken_xml_that_nobody_reads_is_no_failure(hooks, install):
    install("before_vm_cont", "10", "printf '<' > $_hook_domxml")
    assert await hooks.run_xml("before_vm_cont", DOMAIN) == DOMAIN


async def test_a_world_writable_script_is_refused_and_nothing_runs(hooks, install, tmp_path):
    install("before_vm_start", "10_fine", f"touch {tmp_path}/ran")
    path = install("before_vm_start", "50_open", f"touch {tmp_path}/ran", mode=0o777)
    with pytest.raises(HookFailed) as failure:
        await hooks.run_xml("before_vm_start", DOMAIN)
    assert "before_vm_start/50_open was refused (exit code 126): it is writable by every user (mode 0777)" in str(
        failure.value
    )
    assert not (tmp_path / "ran").exists()
    path.chmod(0o755)
    await hooks.run_xml("before_vm_start", DOMAIN)
    assert (tmp_path / "ran").exists()


async def test_a_world_writable_directory_is_refused(hooks, install, paths):
    install("before_vm_start", "50", "exit 0")
    Path(paths.hooks, "before_vm_start").chmod(0o777)
    with pytest.raises(HookFailed, match=r"its directory .*before_vm_start is writable by every user"):
        await hooks.run_xml("before_vm_start", DOMAIN)


async def test_a_strangers_script_is_refused(hooks, install):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(install("before_vm_start", "50", "exit 0"), 12345, 12345)
    with pytest.raises(HookFailed, match="it belongs to user 12345, expected root"):
        await hooks.run_xml("before_vm_start", DOMAIN)


async def test_a_refused_script_does_not_keep_others_from_running_where_nothing_aborts(hooks, install, paths):
    install("after_vm_start", "10_open", "exit 0", mode=0o777)
    install("after_vm_start", "20_fine", "exit 0")
    await hooks.run_xml("after_vm_start", DOMAIN)
    (record,) = trace.read(trace.folder_of(paths))
    assert [str(script.result) for script in record.scripts] == ["refused", "done"]


async def test_chmod_alone_is_noticed(hooks, install):
    """It changes the file's ctime, not the directory."""
    path = install("before_vm_start", "10", 'printf "<!--x-->" >> $_hook_domxml')
    assert "x-->" in await hooks.run_xml("before_vm_start", DOMAIN)
    path.chmod(0o644)
    assert await hooks.run_xml("before_vm_start", DOMAIN) == DOMAIN
    path.chmod(0o755)
    assert "x-->" in await hooks.run_xml("before_vm_start", DOMAIN)
    path.unlink()
    assert await hooks.run_xml("before_vm_start", DOMAIN) == DOMAIN


async def test_an_interpreter_that_is_missing(hooks, install):
    install("before_vm_start", "10", "", head="#!/no/such/interpreter\n")
    with pytest.raises(HookFailed, match=r"10 ended with exit code 127: .*No such file"):
        await hooks.run_xml("before_vm_start", DOMAIN)


async def test_failure_after_the_fact_is_an_event_a_metric_and_in_the_trace(hooks, install, events, paths):
    from vdsm.common import metrics

    told = events.subscribe("test")
    install("after_vm_destroy", "50_notify", "echo no route >&2; exit 1")
    await hooks.run_xml("after_vm_destroy", DOMAIN, vm=TriedVm(VM_ID))
    event = await asyncio.wait_for(anext(told), 1)
    assert event.method == f"|hook|failed|{VM_ID}"
    assert event.params["script"] == "50_notify"
    assert "exit code 1: no route" in event.params["message"]
    assert b'vdsm_hook_failures_total{point="after_vm_destroy"}' in metrics.render()
    (record,) = trace.read(trace.folder_of(paths), vm_id=VM_ID)
    assert record.failure is not None
    assert record.failure.code == 1


async def test_no_room_for_the_document_is_an_error_of_ours(hooks, install, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    install("before_vm_start", "10", "exit 0")
    install("after_vm_start", "10", "exit 0")
    with pytest.raises(HooksNotRun, match="before_vm_start could not be run"):
        await hooks.run_xml("before_vm_start", DOMAIN)
    assert await hooks.run_xml("after_vm_start", DOMAIN) == DOMAIN


async def test_many_vms_at_once_do_not_wait_for_each_other(hooks, install):
    install("before_vm_start", "10", 'sleep 0.4; printf "<!--%s-->" "$vmId" >> "$_hook_domxml"')
    started = time.monotonic()
    ids = [f"vm{number}" for number in range(10)]
    results = await asyncio.gather(*(hooks.run_xml("before_vm_start", DOMAIN, vm=TriedVm(id_)) for id_ in ids))
    assert results == [f"{DOMAIN}<!--{id_}-->" for id_ in ids]
    assert time.monotonic() - started < 2.5


async def test_the_loop_goes_on_while_a_script_runs(hooks, install):
    install("before_vm_start", "10", "sleep 0.3")
    longest, running = 0.0, asyncio.create_task(hooks.run_xml("before_vm_start", DOMAIN))
    while not running.done():
        before = time.monotonic()
        await asyncio.sleep(0.005)
        longest = max(longest, time.monotonic() - before)
    assert longest < 0.2


async def test_no_descriptor_leaks(hooks, install):
    install("before_vm_start", "10", "echo x >&2")
    install("before_vm_start", "20", "printf '<' > $_hook_domxml")

    async def fail():
        with pytest.raises(HookFailed):
            await hooks.run_xml("before_vm_start", DOMAIN)

    await fail()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await fail()
    assert len(os.listdir("/proc/self/fd")) <= before


AGENT = """
import asyncio, sys
from vdsm.common import commands, groups
from vdsm.common.paths import Paths
from vdsm.hooking.service import Hooks
groups.set_folder(sys.argv[2])
asyncio.run(Hooks(paths=Paths(hooks=sys.argv[1], state=sys.argv[3])).run_xml("before_vm_start", "<domain/>"))
"""


async def test_a_killed_agent_leaves_no_script_behind(install, paths, tmp_path, monkeypatch):
    """The script dies at once with the agent; its child is on record and ends at the next start."""
    install("before_vm_start", "10", f"sleep 1000 & echo $$ $! > {tmp_path}/p; mv {tmp_path}/p {tmp_path}/pids; wait")
    commands = str(tmp_path / "commands")
    (tmp_path / "tmp").mkdir()
    environ = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    agent = subprocess.Popen([sys.executable, "-c", AGENT, paths.hooks, commands, paths.state], env=environ)
    await until((tmp_path / "pids").exists, 10)
    script, child = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    await until(lambda: any(name.isdigit() for name in os.listdir(commands)))
    agent.kill()
    agent.wait()
    await until(lambda: gone(script))
    assert not gone(child)
    assert groups.kill_recorded(commands) == [script]
    assert gone(child)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with Document("in use") as document:
        assert len(os.listdir(tmp_path / "tmp")) == 2
        Hooks(paths=paths)
        assert document.read() == "in use", "the next agent removes only what nobody holds"
    assert os.listdir(tmp_path / "tmp") == []
