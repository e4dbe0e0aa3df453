# SPDX-License-Identifier: GPL-2.0-or-later
"""Lanes, claims, jobs, slots, flags and images: who waits for whom, what is refused, and what the log says of it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt import mailbox, records, slots
from vdsm.virt.claims import Answer, Claim, Claims, answer
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.errors import ClaimedByJob, HypervisorError, NoSuchVmJob
from vdsm.virt.images import SharedImages
from vdsm.virt.jobs import VmJobs
from vdsm.virt.launch_flags import BadLaunchFlags, LaunchFlags
from vdsm.virt.mailbox import Mailbox
from vdsm.virt.records import SavedJob
from vdsm.virt.slots import Slots, fitting

from .fakes import DOMAIN, IMAGE, POOL, VM, VOLUME, FakePrepared, FakeStorage, World, new_id, settle, until, xml_of
from .test_vm_jobs import MERGE, Work

OTHER = new_id()


# Lanes


async def test_an_error_of_ours_is_one_line_with_the_vm_and_what_it_was_and_a_defect_has_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    box = Mailbox(VM, asyncio.Semaphore(1))

    async def refused() -> None:
        raise HypervisorError("look", 1, "no")

    async def defect() -> None:
        raise ValueError("odd")

    box.event("an event", refused)
    box.event("another", defect)
    box.hook("after_vm_pause", refused)
    await settle()
    told = {record.getMessage(): bool(record.exc_info) for record in caplog.records}
    assert told == {
        f"events of VM {VM}: an event: libvirt failed to look: no": False,
        f"events of VM {VM}: another": True,
        f"hooks of VM {VM}: after_vm_pause: libvirt failed to look: no": False,
    }


async def test_hooks_that_nobody_works_off_are_left_out_by_name(caplog: pytest.LogCaptureFixture) -> None:
    box, ran = Mailbox(VM, asyncio.Semaphore(0)), []

    async def hook() -> None:
        ran.append(1)

    for _ in range(mailbox.HOOKS_LIMIT):
        box.hook("after_vm_pause", hook)
    await settle()
    box.hook("after_vm_pause", hook)  # one waits for its slot, so there is room again
    assert caplog.records == []
    box.hook("after_vm_cont", hook)
    assert [r.getMessage() for r in caplog.records] == ["the hook after_vm_cont is left out: too many wait before it"]
    box.close()
    await settle()
    assert ran == []


async def test_a_mailbox_that_is_closed_does_nothing_and_tells_of_nothing_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    box, ran = Mailbox(VM, asyncio.Semaphore(1)), []

    async def work() -> None:
        ran.append(1)

    box.close()
    box.hook("after_vm_pause", work)
    assert box.event("an event", work)
    await settle()
    assert (caplog.records, ran) == ([], [])


async def test_a_hook_that_fails_gives_its_slot_back() -> None:
    slots = asyncio.Semaphore(1)
    box, ran = Mailbox(VM, slots), []

    async def fails() -> None:
        raise ValueError("odd")

    async def works() -> None:
        ran.append(1)

    box.hook("x", fails)
    box.hook("x", works)
    await settle()
    assert ran == [1] and not slots.locked()


async def test_events_go_on_after_a_pause() -> None:
    box, ran = Mailbox(VM, asyncio.Semaphore(1)), []

    async def works() -> None:
        ran.append(1)

    for _ in range(3):
        assert box.event("x", works)
        await settle()
    assert ran == [1, 1, 1]


# Claims

WHOLE = {"MIGRATION", "SAVE", "SNAPSHOT", "BACKUP"}
DRIVE = {"MERGE", "COPY", "RESIZE"}
# held -> refused; what virt.md §12 and the table in `claims` say
REFUSED = {
    "MIGRATION": WHOLE | {"PLUG", "MEDIA"},
    "SAVE": WHOLE | DRIVE | {"PLUG", "MEDIA"},
    "SNAPSHOT": WHOLE | DRIVE,
    "BACKUP": WHOLE | {"MERGE"},
    "MERGE": DRIVE | {"SNAPSHOT", "BACKUP", "MIGRATION", "SAVE"},
    "COPY": DRIVE | {"SNAPSHOT", "MIGRATION", "SAVE"},
    "RESIZE": DRIVE | {"SNAPSHOT", "SAVE"},
}
WAITS = {
    "MERGE": {"EXTEND"},
    "COPY": {"EXTEND"},
    "RESIZE": {"EXTEND"},
    "EXTEND": {"EXTEND", "RESIZE"},
    "PLUG": {"PLUG"},
    "MEDIA": {"MEDIA"},
    "TUNING": {"TUNING"},
}


@pytest.mark.parametrize("held", list(Claim))
def test_what_each_claim_keeps_out(held: Claim) -> None:
    said = {wanted.name: answer(held, wanted) for wanted in Claim}
    assert {name for name, told in said.items() if told is Answer.REFUSE} == REFUSED.get(held.name, set())
    assert {name for name, told in said.items() if told is Answer.WAIT} == WAITS.get(held.name, set())


async def test_a_refusal_names_both_and_for_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    claims, now = Claims(VM), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    async with claims.take(Claim.MIGRATION):
        now[0] += 42
        told = f"VM {VM}: a snapshot can't begin, a migration goes on for 42 s"
        with pytest.raises(ClaimedByJob, match=told) as refused:
            async with claims.take(Claim.SNAPSHOT):
                pass
    assert refused.value.vm_id == VM
    assert "abort" in refused.value.remedy


@pytest.mark.parametrize(("one", "other", "meet"), [("vda", "vda", True), ("vda", "vdb", False), ("", "vda", True)])
async def test_claims_meet_on_one_drive_and_on_the_whole_vm(one: str, other: str, meet: bool) -> None:
    for held, wanted in ((one, other), (other, one)):
        claims = Claims(VM)
        async with claims.take(Claim.MERGE, held):
            if meet:
                with pytest.raises(ClaimedByJob):
                    async with claims.take(Claim.MERGE, wanted):
                        pass
            else:
                async with claims.take(Claim.MERGE, wanted) as mine:
                    assert (mine.claim, mine.on) == (Claim.MERGE, wanted)
        assert not claims.holds(Claim.MERGE)


async def test_who_waits_is_let_in_when_what_he_waits_for_is_over_and_not_before() -> None:
    claims = Claims(VM)

    async def resize() -> None:
        async with claims.take(Claim.RESIZE, "vda"):
            pass

    async with claims.take(Claim.EXTEND, "vda"):
        waiting = asyncio.create_task(resize())
        await settle()
        async with claims.take(Claim.SNAPSHOT):
            pass
        async with claims.take(Claim.MERGE, "vdb"):
            await settle()
        assert not waiting.done()
    await waiting


async def test_all_that_wait_go_one_after_the_other() -> None:
    claims, running, most = Claims(VM), 0, 0

    async def plug() -> None:
        nonlocal running, most
        async with claims.take(Claim.PLUG, "ua-1"):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(plug() for _ in range(5)))
    assert most == 1


# Jobs


async def up(world: World) -> VmJobs:
    vm = await world.vms.create(VM, xml_of())
    await until(lambda: vm.status.reported == "Up")
    await settle()
    return VmJobs(vm, {})


@pytest.mark.parametrize(("error", "defect"), [(HypervisorError("merge", 1, "no"), False), (ValueError("odd"), True)])
async def test_a_job_that_fails_is_in_the_log_by_kind_and_id(
    world: World, caplog: pytest.LogCaptureFixture, error: Exception, defect: bool
) -> None:
    jobs, work = await up(world), Work()
    work.error = error
    task = await jobs.start(MERGE, work)
    assert task.get_name() == f"merge job-1 of VM {VM}"
    work.ends.set()
    await task
    told = caplog.records[-1]
    assert told.getMessage().startswith(f"VM {VM}: merge job-1 failed")
    assert bool(told.exc_info) is defect
    assert defect or told.getMessage().endswith(": libvirt failed to merge: no")


async def test_a_job_that_can_not_be_resumed_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    jobs = await up(world)
    await world.vms.get(VM).change(jobs=(SavedJob("job-9", "a later kind"),))
    await jobs.recover(await world.hypervisor.domain(VM))
    assert f"VM {VM}: a later kind job-9 can't be resumed by this agent" in caplog.text


async def test_the_job_that_is_not_there_is_named(world: World) -> None:
    jobs = await up(world)
    with pytest.raises(NoSuchVmJob, match=f"VM {VM} has no job job-7"):
        await jobs.abort("job-7")


async def test_a_job_that_ended_is_off_the_record_and_others_stay(world: World) -> None:
    jobs, first, second = await up(world), Work(), Work()
    task = await jobs.start(MERGE, first)
    other = SavedJob("job-2", "merge", "vdb", "image-2")
    await jobs.start(other, second)
    await settle()
    first.ends.set()
    await task
    assert world.vms.get(VM).record.jobs == (other,)
    assert set(jobs.report()["vmJobs"]) == {"job-2"}
    second.progress(0, 0)
    first.progress(9, 9)  # late: it is no job any more
    assert jobs.report()["vmJobs"]["job-2"]["cur"] == "0"


async def test_a_job_whose_verb_was_left_before_it_began_is_off_the_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = await up(world)
    vm, began, go = world.vms.get(VM), threading.Event(), threading.Event()
    real = records.write_atomic

    def slow(path: str, data: bytes, mode: int) -> None:
        began.set()
        go.wait(5)
        real(path, data, mode)

    monkeypatch.setattr(records, "write_atomic", slow)
    starting = asyncio.create_task(jobs.start(MERGE, Work()))
    await asyncio.to_thread(began.wait)
    starting.cancel()
    go.set()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert (vm.record.jobs, vm.claims.holds(Claim.MERGE), jobs.report()["vmJobs"]) == ((), False, {})


# Slots


def test_slots_of_this_host() -> None:
    assert fitting() == fitting(os.cpu_count(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    assert slots.HELD_S == 10.0


async def test_a_slot_is_given_back_once() -> None:
    free = Slots(1)
    first = await free.take()
    first.give_back()
    first.give_back()
    second = await free.take()
    third = asyncio.create_task(free.take())
    await settle()
    assert not third.done()
    second.give_back()
    (await third).give_back()


# Launch flags


def flags(tmp_path: Path, content: bytes | None = None) -> LaunchFlags:
    found = LaunchFlags(str(tmp_path), VM)
    found.write(0)
    path = tmp_path / VM / "launchflags"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return found


@pytest.mark.parametrize(("content", "value"), [(b"1", 1), (b" 8\n", 8), (b"65535", 65535), (None, 0)])
def test_flags_are_one_decimal_number(tmp_path: Path, content: bytes | None, value: int) -> None:
    assert flags(tmp_path, content).read() == value


@pytest.mark.parametrize("content", [b"", b"x", b"-1", b"1 2", b"65536", b"0x1", b"9" * 100, b"\xff"])
def test_flags_that_are_none_are_refused_with_file_and_content(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadLaunchFlags) as refused:
        flags(tmp_path, content).read()
    shown = content[:64].decode("utf-8", "replace")
    path = f"{tmp_path}/{VM}/launchflags"
    assert str(refused.value) == f"A hook left {shown!r} in {path}: expected one decimal number"


def test_the_folder_of_flags_is_for_all_to_see_and_goes_with_the_vm(tmp_path: Path) -> None:
    found = LaunchFlags(str(tmp_path), VM)
    found.remove()
    found.write(1)
    found.write(3)
    folder = tmp_path / VM
    assert (folder.stat().st_mode & 0o777, (folder / "launchflags").read_text()) == (0o755, "3")
    found.remove()
    assert list(folder.iterdir()) == []
    found.remove_folder()
    found.remove_folder()
    assert not folder.exists()


# Images


class Storage(FakeStorage):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, ...]] = []
        self.errors: list[Exception] = []

    async def prepare_image(self, *ids: str, consumer: str) -> FakePrepared:  # type: ignore[override]
        self.asked.append(("prepare", *ids, consumer))
        return FakePrepared("/x")

    async def teardown_image(self, *ids: str, consumer: str) -> None:  # type: ignore[override]
        self.asked.append(("tear down", *ids, consumer))
        if self.errors:
            raise self.errors.pop()

    async def resume_prepared(self, images: object, *, consumer: str) -> list[tuple[str, str, str, str]]:
        self.asked.append(("resume", str(images), consumer))
        return [(POOL, DOMAIN, IMAGE, VOLUME)]


ONE = ImageId(POOL, DOMAIN, IMAGE, VOLUME)


async def test_storage_is_asked_by_all_ids_and_in_the_vms_name() -> None:
    storage = Storage()
    images = SharedImages(storage)
    assert (await images.prepare(VM, ONE)).path == "/x"
    assert await images.resume(VM, [ONE]) == [ONE]
    assert await images.resume(VM, []) == []
    assert await images.release(VM, [ONE, ONE]) == []
    assert storage.asked == [
        ("prepare", POOL, DOMAIN, IMAGE, VOLUME, f"vm:{VM}"),
        ("resume", str([(POOL, DOMAIN, IMAGE, VOLUME)]), f"vm:{VM}"),
        ("tear down", POOL, DOMAIN, IMAGE, f"vm:{VM}"),
    ]


@pytest.mark.parametrize("error", [OSError("busy"), DeadlineExceeded("teardown", 30)])
async def test_an_image_that_stays_is_told_with_its_domain(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    storage = Storage()
    storage.errors.append(error)
    assert await SharedImages(storage).release(VM, [ONE]) == [ONE]
    assert [r.getMessage() for r in caplog.records] == [
        f"VM {VM}: image {IMAGE} of domain {DOMAIN} stays prepared: {error}"
    ]


async def test_what_is_not_wanted_any_more_stays_and_is_all_left() -> None:
    storage = Storage()
    assert await SharedImages(storage).release(VM, [ONE], wanted=lambda: False) == [ONE]
    assert storage.asked == []


async def test_a_teardown_of_one_vm_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, go = Storage(), asyncio.Event()

    async def hangs(*_ids: str, consumer: str) -> None:
        await go.wait()

    monkeypatch.setattr(storage, "teardown_image", hangs)
    images = SharedImages(storage)
    tearing = asyncio.create_task(images.release(VM, [ONE]))
    await settle()
    same = asyncio.create_task(images.prepare(VM, ONE))
    async with asyncio.timeout(1):
        await images.prepare(OTHER, ONE)
    assert not same.done()
    go.set()
    await tearing
    await same
