# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host shows of itself: metrics, clocks, paths, events, values in messages."""

import asyncio
import gc
import logging
from types import SimpleNamespace

import pytest

from vdsm.common import clocks, ids, logs, memory, metrics, owners, xml
from vdsm.common.errors import InvalidParameter
from vdsm.common.events import Events
from vdsm.common.jobs import Job, describe
from vdsm.common.paths import Paths


def rendered():
    return metrics.render().decode().splitlines()


def test_a_flow_is_counted_with_how_it_ended():
    with clocks.Clock("test.flow"):
        pass
    with pytest.raises(ValueError, match="x"), clocks.Clock("test.flow"):
        raise ValueError("x")
    for result in ("done", "failed"):
        assert f'vdsm_flow_seconds_count{{flow="test.flow",result="{result}"}} 1.0' in rendered()


def test_a_flows_time_is_in_its_bucket(monkeypatch):
    now = iter([10.0, 10.0, 10.3])
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with clocks.Clock("test.bucket") as clock:
        pass
    assert clock.total_s == pytest.approx(0.3)
    lines = [line for line in rendered() if 'flow="test.bucket"' in line and "_bucket" in line]
    counted = {line.split('le="')[1].split('"')[0]: line.split()[-1] for line in lines}
    assert (counted["0.25"], counted["0.5"], counted["60.0"]) == ("0.0", "1.0", "1.0")


def test_the_line_of_a_clock_says_where_the_time_went(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "vdsm.clock")
    times = iter([0.0, 0.0, 1.0, 1.5, 2.0, 4.0, 5.0, 5.25, 7.0])
    monkeypatch.setattr(clocks, "time", SimpleNamespace(monotonic=lambda: next(times)))
    with clocks.Clock("VM.create", "vm-1") as clock:
        for name in ("hooks", "storage", "hooks"):
            with clock.step(name):
                pass
    assert caplog.messages == ["VM.create vm-1 7.000 s: hooks 0.750, storage 2.000"]
    caplog.clear()
    times = iter([0.0, 0.0, 0.5])
    with pytest.raises(ValueError, match="x"), clocks.Clock("Host.ping"):
        raise ValueError("x")
    assert caplog.messages == ["Host.ping 0.500 s (failed)"]


def test_metrics_of_each_kind_are_shown():
    metrics.counter("test_calls", "Calls", ("verb",)).labels("x").inc(2)
    metrics.gauge("test_level", "Level", ("of",)).labels("y").set(3)
    metrics.histogram("test_size", "Size", buckets=(1, 2)).observe(1.5)
    shown = rendered()
    for line in ('test_calls_total{verb="x"} 2.0', 'test_level{of="y"} 3.0', 'test_size_bucket{le="2.0"} 1.0'):
        assert line in shown
    assert "# HELP test_level Level" in shown
    assert 'test_size_bucket{le="1.0"} 0.0' in shown


def test_the_clock_of_events_is_exact_after_years(monkeypatch):
    monkeypatch.setattr("time.monotonic_ns", lambda: 123_456_789_012_345_678)
    assert clocks.event_ms() == 2_147_483_647 + 123_456_789_012


def test_paths_are_those_of_the_field():
    paths = Paths()
    assert (paths.repository, paths.mounts) == ("/rhev/data-center", "/rhev/data-center/mnt")
    assert (paths.socket, paths.storage_run) == ("/run/vdsm/vdsm.sock", "/run/vdsm/storage")
    assert (paths.hooks, paths.pki) == ("/usr/libexec/vdsm/hooks", "/etc/pki/vdsm")
    assert (paths.host_id_file, paths.log) == ("/etc/vdsm/vdsm.id", "/var/log/vdsm")
    assert paths.state_folders == ("/var/lib/vdsm/vms", "/var/lib/vdsm/hooks", "/var/lib/vdsm/identity")
    assert (paths.root_socket, paths.root_staging) == ("/run/vdsm-root/root.sock", "/run/vdsm-root/staging")
    assert paths.root_state == "/var/lib/vdsm-root"
    files = (paths.commands, paths.agent_lock, paths.spm_lock)
    assert files == ("/run/vdsm/commands", "/run/vdsm/agent.lock", "/run/vdsm/spm.lock")
    assert (paths.root_lock, paths.root_commands) == ("/run/vdsm-root/helper.lock", "/run/vdsm-root/commands")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x", "'x'"),
        ("a\nb", "'a\\nb'"),
        ("x" * 78, "'" + "x" * 78 + "'"),
        ("x" * 79, "'" + "x" * 79 + "…"),
        ("x" * 10_000, "'" + "x" * 79 + "…"),
        (b"x", "b'x'"),
        (7, "7"),
        (None, "None"),
        ({"password": "x"}, "an object"),
        (["x"], "an array"),
        (("x",), "an array"),
    ],
)
def test_a_value_in_a_message_is_short_and_on_one_line(value, shown):
    assert ids.shown(value) == shown


def test_a_value_can_be_cut_shorter():
    assert ids.shown("abcdef", 4) == "'abc…"


def test_new_ids_are_ids():
    assert ids.is_uuid(ids.new_uuid())
    assert ids.new_uuid() != ids.new_uuid()
    assert ids.is_uuid(ids.BLANK_UUID)
    assert not ids.is_uuid(None)


def test_what_is_no_id_is_refused_in_full():
    with pytest.raises(InvalidParameter) as e:
        ids.check_uuid("imageID", "x")
    assert str(e.value) == ("Parameter 'imageID' is invalid: expected a UUID in lower-case canonical form (got 'x')")


async def test_a_job_is_shown_as_the_field_shows_it():
    job = Job("j", job_type="storage", verb="v", description="d", owner="o")
    assert describe(job) == {"id": "j", "status": "pending", "description": "d", "job_type": "storage"}
    job.progress = 7
    shown = describe(job)
    assert (shown["progress"], type(shown["progress"])) == (7.0, float)


# -- events


async def test_an_event_without_an_id_has_one_that_the_engine_takes():
    events = Events()
    told = events.subscribe("x")
    events.publish("net", "host_conn", "", {"a": 1})
    event = await anext(told)
    assert (event.method, event.params["a"]) == ("|net|host_conn|no_id", 1)


async def test_a_subscriber_may_lag_by_as_much_as_it_asked_for():
    events = Events()
    slow = events.subscribe("slow", max_queue=2)
    for n in range(2):
        events.publish("a", "b", str(n), {})
    assert not slow.overflowed
    slow.close()
    slow.close()
    assert [event.unique_id async for event in slow] == ["0", "1"]
    assert events.subscriptions == []


async def test_a_subscriber_that_says_nothing_gets_a_thousand():
    events = Events()
    slow = events.subscribe("slow")
    for _ in range(1000):
        events.publish("a", "b", "c", {})
    assert not slow.overflowed
    events.publish("a", "b", "c", {})
    assert slow.overflowed


# -- lanes


async def test_a_lane_says_what_runs():
    lane = owners.Lane("VM x")
    assert lane.holder == ""
    async with lane("create"):
        assert lane.holder == "create"
    assert lane.holder == ""


async def test_a_busy_lane_says_for_how_long(monkeypatch):
    lane, now = owners.Lane("VM x"), [5.0]
    monkeypatch.setattr(owners, "time", SimpleNamespace(monotonic=lambda: now[0]))
    async with lane("create"):
        now[0] = 105.0
        with pytest.raises(owners.LaneBusy) as e:
            async with lane("destroy", wait_s=0.01):
                pass
    assert str(e.value) == "VM x is busy with create for 100.0 s: destroy did not get its turn"


async def test_a_lane_is_free_again_after_a_failure_and_after_one_that_gave_up():
    lane = owners.Lane("VM x")
    with pytest.raises(ValueError, match="x"):
        async with lane("create"):
            raise ValueError("x")
    async with lane("again", wait_s=5):
        waiting = asyncio.ensure_future(lane("late").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
    async with lane("last", wait_s=5):
        assert lane.holder == "last"


# -- logs


def test_a_full_queue_loses_lines_and_counts_them(tmp_path, monkeypatch):
    before = logging.getLogger().handlers[:], logging.getLogger().level
    monkeypatch.setattr(logs, "MAX_QUEUED", 2)
    monkeypatch.setattr(logging.handlers.QueueListener, "start", lambda self: None)
    monkeypatch.setattr(logging.handlers.QueueListener, "stop", lambda self: None)
    running = logs.setup("WARNING", str(tmp_path / "log"))
    try:
        for n in range(5):
            logging.getLogger("vdsm.test").warning("%d", n)
            logging.getLogger("vdsm.test").info("below the level")
        assert running.dropped == 3
    finally:
        running.stop()
        logging.getLogger().handlers[:] = before[0]
        logging.getLogger().setLevel(before[1])


def test_what_a_caller_names_a_flow_is_no_line_of_its_own(tmp_path):
    before = logging.getLogger().handlers[:], logging.getLogger().level
    running = logs.setup("INFO", str(tmp_path / "log"))
    try:
        with logs.flow("x\n2026-01-01 00:00:00,000 INFO vdsm.audit all is well"):
            logging.getLogger("vdsm.test").info("done")
    finally:
        running.stop()
        logging.getLogger().handlers[:] = before[0]
        logging.getLogger().setLevel(before[1])
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith("[x")
    assert second.startswith(" ")


def test_a_program_logs_to_its_standard_error_and_other_libraries_lines_have_the_same_form(capfd):
    before = logging.getLogger().handlers[:], logging.getLogger().level
    running = logs.setup()
    try:
        logging.getLogger("vdsm.test").info("hello")
        running._listener.handle(logging.makeLogRecord({"msg": "bare", "name": "other", "levelname": "INFO"}))
    finally:
        running.stop()
        logging.getLogger().handlers[:] = before[0]
        logging.getLogger().setLevel(before[1])
    told = capfd.readouterr().err
    assert "INFO    vdsm.test hello" in told
    assert "INFO    other bare" in told


def test_memory_that_is_settled_is_not_looked_at_again():
    try:
        memory.settle()
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()


# -- XML


def test_xml_is_text_again():
    text = "<a><b c='ü'>x</b>\n</a>"
    assert xml.to_text(xml.parse(text, what="it")) == '<a><b c="ü">x</b>\n</a>'


def test_xml_that_is_refused_says_why():
    with pytest.raises(xml.InvalidXml) as e:
        xml.parse(b"<a/>" + b" " * xml.MAX_BYTES, what="the domain XML of VM x")
    told = f"the domain XML of VM x is not valid XML: {xml.MAX_BYTES + 4} bytes is over the limit of {xml.MAX_BYTES}"
    assert str(e.value) == told
    with pytest.raises(xml.InvalidXml, match="a document type declaration is not allowed"):
        xml.parse("<!DOCTYPE a><a/>", what="it")
    assert xml.parse(b"<a>" + b" " * (xml.MAX_BYTES - 7) + b"</a>", what="it").tag == "a"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("<g passwd='x' port='1'/>", '<g passwd="*****" port="1"/>'),
        (
            "<m:sysprepPassword xmlns:m='u'>x</m:sysprepPassword>",
            '<m:sysprepPassword xmlns:m="u">*****</m:sysprepPassword>',
        ),
        ("<s><token> </token><usage>x</usage></s>", "<s><token> </token><usage>x</usage></s>"),
        ("<payload><file name='n'>x</file></payload>", '<payload><file name="n">*****</file></payload>'),
        ("<d><file>x</file></d>", "<d><file>x</file></d>"),
        ("<arg value='-secret,file=x'/>", '<arg value="*****"/>'),
        ("<env name='MY_TOKEN' value='x'/>", '<env name="MY_TOKEN" value="*****"/>'),
        ("<env name='HOME' value='/root'/>", '<env name="HOME" value="/root"/>'),
        ("<a secret='x'><!-- c --><?p i?></a>", '<a secret="*****"><!-- c --><?p i?></a>'),
        ("<a", ""),
    ],
)
def test_secrets_in_xml_are_hidden(text, hidden):
    assert xml.without_secrets(text) == hidden
