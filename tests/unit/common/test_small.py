# SPDX-License-Identifier: GPL-2.0-or-later
"""The small pieces of the ground floor."""

import asyncio
import logging
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from vdsm.common import crashpoints, logs, xml
from vdsm.common.atomic import write_atomic
from vdsm.common.clocks import Clock, event_ms
from vdsm.common.deadlines import deadline
from vdsm.common.errors import DeadlineExceeded, InvalidParameter
from vdsm.common.events import Events
from vdsm.common.ids import check_uuid
from vdsm.common.jobs import Jobs, JobStatus, NoSuchJob
from vdsm.common.owners import Lane, LaneBusy
from vdsm.common.units import round_up
from vdsm.virt import report

UUID = "275766cb-c7d8-43d6-a663-4e52160de620"


@pytest.mark.parametrize(
    "bad", ["../../etc/passwd", UUID.upper(), UUID + "\n", UUID + "/..", "", "x" * 10_000, 5, None]
)
def test_what_is_no_canonical_uuid_is_refused_by_name(bad):
    with pytest.raises(InvalidParameter, match="'imageID'") as e:
        check_uuid("imageID", bad)
    assert len(str(e.value)) < 300


def test_uuid_passes():
    assert check_uuid("imageID", UUID) == UUID


async def test_deadline_names_what_was_late():
    with pytest.raises(DeadlineExceeded, match=r"reading the moon did not end within 0\.01 s"):
        async with deadline("reading the moon", 0.01):
            await asyncio.sleep(10)


async def test_timeout_of_the_body_is_not_taken_for_the_deadline():
    with pytest.raises(TimeoutError) as e:
        async with deadline("anything", 10):
            raise TimeoutError("inner")
    assert str(e.value) == "inner"


def test_atomic_write_leaves_old_text_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "state"
    write_atomic(path, b"old", mode=0o600)

    def fail(fd):
        raise OSError("full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_crash_point_really_kills(tmp_path):
    code = "from vdsm.common.crashpoints import crash_point\np=crash_point('a.b','c')\np.reach()\nprint('alive')"
    once = tmp_path / "once"

    def run(value):
        return subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "VDSM_CRASH_AT": value}, capture_output=True
        )

    assert run("a.b").returncode == -9
    assert run("a.other").stdout == b"alive\n"
    assert run(f"a.b:{once}").returncode == -9
    assert run(f"a.b:{once}").stdout == b"alive\n"


def test_crash_points_are_unique():
    crashpoints.crash_point("test.unique", "x")
    try:
        with pytest.raises(ValueError, match="twice"):
            crashpoints.crash_point("test.unique", "y")
    finally:
        del crashpoints.REGISTRY["test.unique"]


async def test_lane_is_fair_and_names_its_holder():
    lane = Lane("VM x")
    order = []

    async def act(name):
        async with lane(name):
            order.append(name)
            await asyncio.sleep(0)

    async with lane("migration"):
        waiting = [asyncio.ensure_future(act(n)) for n in "abc"]
        with pytest.raises(LaneBusy, match=r"VM x is busy with migration for .* s: shutdown did not get its turn"):
            async with lane("shutdown", wait_s=0.01):
                pass
    await asyncio.gather(*waiting)
    assert order == ["a", "b", "c"]


async def test_slow_subscriber_loses_itself_not_others():
    events = Events()
    slow, quick = events.subscribe("slow", max_queue=2), events.subscribe("quick")
    for n in range(4):
        events.publish("virt", "VM_status", str(n), {})
    assert slow.overflowed
    assert [e.unique_id async for e in slow] == ["0", "1"]
    quick.close()
    got = [e async for e in quick]
    assert [e.method for e in got] == [f"|virt|VM_status|{n}" for n in range(4)]
    times = [e.params["notify_time"] for e in got]
    assert times == sorted(times)
    assert all(isinstance(t, int) for t in times)


def test_events_are_as_new_as_those_of_a_field_host_of_the_same_uptime(monkeypatch):
    monkeypatch.setattr("time.monotonic_ns", lambda: 12_345_678_901)
    assert event_ms() == 2_147_483_647 + 12_345


def test_the_status_of_a_vm_is_dated_by_the_same_clock_as_text():
    vm = SimpleNamespace(vm_id="x", status=SimpleNamespace(reported="Up"))
    before = event_ms()
    told = report.brief(vm)["statusTime"]
    assert isinstance(told, str)
    assert before <= int(told) <= event_ms()


def test_an_event_carries_the_clock_of_the_field():
    events = Events()
    told = events.subscribe("test")
    before = 2**31 - 1 + int(time.monotonic() * 1000)
    events.publish("net", "host_conn", "", {})
    assert before <= told._queue.get_nowait().params["notify_time"] <= 2**31 - 1 + time.monotonic() * 1000


async def test_job_reports_result_error_and_abort():
    events = Events()
    told = events.subscribe("test")
    jobs = Jobs(events)

    async def good(job):
        job.progress = 50
        return 7

    async def bad(job):
        raise InvalidParameter("a", "b", "c")

    async def endless(job):
        await asyncio.Event().wait()

    started = {
        name: jobs.start(name, body, job_type="storage", verb="v", description="d", owner="o")
        for name, body in (("good", good), ("bad", bad), ("endless", endless))
    }
    await started["good"].wait()
    await started["bad"].wait()
    started["endless"].cancel()
    await started["endless"].wait()
    assert (started["good"].status, started["good"].result) == (JobStatus.DONE, 7)
    assert started["bad"].status == JobStatus.FAILED
    assert isinstance(started["bad"].error, InvalidParameter)
    assert started["endless"].status == JobStatus.ABORTED
    jobs.clear("good")
    with pytest.raises(NoSuchJob):
        jobs.get("good")
    ended = {(await anext(told)).unique_id for _ in range(3)}
    assert ended == {"good", "bad", "endless"}


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        "<a>",
        "",
        "<a/>" + " " * (9 << 20),
    ],
)
def test_hostile_xml_is_refused_with_its_name(text):
    with pytest.raises(xml.InvalidXml, match="the domain XML"):
        xml.parse(text, what="the domain XML")


def test_clock_logs_one_line_with_its_steps(caplog):
    caplog.set_level(logging.INFO, "vdsm.clock")
    with Clock("VM.create", "vm-1") as clock, clock.step("prepare"):
        pass
    (record,) = caplog.records
    assert record.getMessage().startswith("VM.create vm-1 0.")
    assert ": prepare 0." in record.getMessage()


@pytest.fixture
def log_file(tmp_path):
    path = tmp_path / "log"
    before = logging.getLogger().handlers[:], logging.getLogger().level
    running = logs.setup("INFO", str(path))

    def lines():
        running.stop()
        return path.read_text().splitlines()

    yield lines
    logging.getLogger().handlers[:] = before[0]
    logging.getLogger().setLevel(before[1])


def test_the_flow_id_is_in_every_line_of_its_flow(log_file):
    with logs.flow("flow-7"):
        logging.getLogger("vdsm.test").info("hello")
    logging.getLogger("vdsm.test").info("outside")
    inside, outside = log_file()
    assert inside.endswith("vdsm.test [flow-7] hello")
    assert outside.endswith("vdsm.test outside")


def test_what_came_from_outside_makes_no_log_line_of_its_own(log_file):
    logging.getLogger("vdsm.test").info("%s came", "joe\nVM.destroy by admin: done\x1b[2J")
    first, second = log_file()
    assert first.endswith("vdsm.test joe")
    assert second == "    VM.destroy by admin: done\\x1b[2J came"


def test_a_traceback_stays_readable(log_file):
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("vdsm.test").exception("it failed")
    lines = log_file()
    assert lines[0].endswith("it failed")
    assert lines[-1] == "ValueError: broken"


def test_rounding_up():
    assert round_up(1, 4096) == 4096
    assert round_up(4096, 4096) == 4096
