# SPDX-License-Identifier: GPL-2.0-or-later
"""Records on the disk: what is read again, what is left alone, and what happens when the disk takes no write."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vdsm.virt import records
from vdsm.virt.domain_xml.metadata import ImageId
from vdsm.virt.errors import RecordNotWritten
from vdsm.virt.qemu_process import QemuProcess
from vdsm.virt.records import Phase, Record, SavedJob, Store, Trouble
from vdsm.virt.states import ExitReason, PauseCode, exit_for

from .fakes import VM, new_id
from .test_full_disk import full_disk

BARE = Record(vm_id=VM, name="x", phase=Phase.STARTING, xml="<domain/>")
FULL = Record(
    vm_id=VM,
    name="my vm",
    phase=Phase.RELEASING,
    xml="<domain/>",
    images=(ImageId("p", "d", "i", "v"),),
    started_at_s=12.5,
    exit=exit_for(ExitReason.USER_SHUTDOWN),
    forget=True,
    told=True,
    asked=ExitReason.ADMIN_SHUTDOWN,
    asked_until_s=99.5,
    heard=ExitReason.MIGRATED,
    time_offset_s=-60,
    trouble=Trouble(PauseCode.NO_SPACE, 7.5, "ua-1", "/x"),
    destroy_on_reboot=True,
    process=QemuProcess(7, 19),
    jobs=(SavedJob("j", "merge", "vda", "i", {"base": "b"}),),
)


def on_disk(folder: Path) -> Any:
    return json.loads((folder / f"{VM}.json").read_text())


async def test_all_of_a_record_is_read_again(tmp_path: Path) -> None:
    await Store(str(tmp_path)).create(FULL)
    assert Store(str(tmp_path)).load() == [FULL]


async def test_a_record_of_an_agent_that_knew_less_has_defaults(tmp_path: Path) -> None:
    kept = {"vm_id": VM, "name": "x", "phase": "starting", "xml": "<domain/>"}
    (tmp_path / f"{VM}.json").write_text(json.dumps(kept))
    assert Store(str(tmp_path)).load() == [BARE]


async def test_a_record_of_an_agent_that_knew_more_is_read(tmp_path: Path) -> None:
    kept = {"vm_id": VM, "name": "x", "phase": "starting", "xml": "<domain/>", "later": [1]}
    (tmp_path / f"{VM}.json").write_text(json.dumps(kept))
    assert Store(str(tmp_path)).load() == [BARE]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "truncated"),
        ("{", "truncated"),
        ("[]", "object"),
        (json.dumps({"vm_id": VM, "name": "x", "phase": "odd", "xml": ""}), "odd"),
        (msgspec.json.encode(msgspec.structs.replace(BARE, vm_id=VM[:-2] + "11")).decode(), "the record is of VM"),
    ],
)
async def test_a_file_that_is_no_record_is_told_and_left_and_others_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, told: str
) -> None:
    other = new_id()
    await Store(str(tmp_path)).create(msgspec.structs.replace(BARE, vm_id=other))
    path = tmp_path / f"{VM}.json"
    path.write_text(text)
    store = Store(str(tmp_path))
    assert [record.vm_id for record in store.load()] == [other]
    assert store.unreadable[VM].startswith(f"{path}: ")
    assert told in store.unreadable[VM]
    assert f"the record of a VM can't be read and is left as it is: {store.unreadable[VM]}" in caplog.text
    assert path.read_text() == text


async def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    names = ["README", "notes.json", f"{VM}.txt", f"{VM}.json.orig", ".hidden", "x.json.tmp"]
    for name in names:
        (tmp_path / name).write_text("x")
    store = Store(str(tmp_path))
    assert (store.load(), store.unreadable) == ([], {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_folder_that_can_not_be_read_is_told_and_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "vms").write_text("a file")
    assert Store(str(tmp_path / "vms")).load() == []
    assert "the folder for the records of VMs can't be read: " in caplog.text


def test_the_folder_is_made_where_it_is_missing_for_the_agent_only(tmp_path: Path) -> None:
    assert Store(str(tmp_path / "a/vms")).load() == []
    assert (tmp_path / "a/vms").stat().st_mode & 0o777 == 0o700


# Changes


async def test_a_change_gives_the_record_as_it_is_and_writes_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    await store.create(BARE)
    changed = await store.change(VM, phase=Phase.RUNNING, started_at_s=5.0)
    assert changed == msgspec.structs.replace(BARE, phase=Phase.RUNNING, started_at_s=5.0) == store.get(VM)
    assert (on_disk(tmp_path)["phase"], on_disk(tmp_path)["started_at_s"]) == ("running", 5.0)
    assert store.all() == [changed]


async def test_a_change_to_the_same_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    await store.create(BARE)
    monkeypatch.setattr(records, "write_atomic", lambda *_given: pytest.fail("it is written"))
    assert await store.change(VM, phase=Phase.STARTING) == BARE


async def test_a_vm_without_a_record_can_not_be_changed_but_forgotten(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(KeyError, match=VM):
        await store.change(VM, phase=Phase.DOWN)
    await store.forget(VM)
    assert list(tmp_path.iterdir()) == []


async def test_what_is_taken_over_is_written_with_its_first_change_only(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.take_over(BARE)
    assert store.get(VM) == BARE
    assert list(tmp_path.iterdir()) == []
    await store.change(VM, phase=Phase.RUNNING)
    assert on_disk(tmp_path)["phase"] == "running"


async def test_what_is_forgotten_is_gone_from_the_disk(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    await store.create(BARE)
    await store.forget(VM)
    assert (store.get(VM), store.all(), list(tmp_path.iterdir())) == (None, [], [])


# A disk that takes no write


async def test_a_new_record_that_is_refused_leaves_the_one_before(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    await store.create(BARE)
    with full_disk(), pytest.raises(RecordNotWritten) as refused:
        await store.create(FULL)
    assert (refused.value.vm_id, refused.value.reason) == (VM, "No space left on device")
    assert store.get(VM) == BARE


async def test_an_error_without_words_is_told_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(*_given: object) -> None:
        raise OSError("odd")

    monkeypatch.setattr(records, "write_atomic", odd)
    with pytest.raises(RecordNotWritten, match="odd"):
        await Store(str(tmp_path)).create(BARE)


async def test_what_is_owed_is_told_once_and_when_it_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt")
    monkeypatch.setattr(records, "RETRY_S", 0.005)
    store = Store(str(tmp_path))
    await store.create(BARE)
    with full_disk():
        changed = await store.change(VM, phase=Phase.RUNNING)
        assert changed.phase is Phase.RUNNING
        await asyncio.sleep(0.03)
    assert store._payer is not None
    await store._payer
    assert on_disk(tmp_path)["phase"] == "running"
    told = [r.getMessage() for r in caplog.records]
    error = f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: '{tmp_path}/{VM}.json'"
    assert told == [
        f"the record of VM {VM} can't be written, the VM goes on without: {error}",
        f"VM {VM}: its record is written again",
    ]


async def test_a_record_that_can_not_be_removed_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RETRY_S", 0.005)
    store = Store(str(tmp_path))
    await store.create(BARE)
    with full_disk():
        await store.forget(VM)
        assert store.get(VM) is None
        await store.forget(VM)  # again is harmless
    assert store._payer is not None
    await store._payer
    assert list(tmp_path.iterdir()) == []


async def test_who_writes_pays_for_others_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "RETRY_S", 0.005)
    store, other = Store(str(tmp_path)), new_id()
    await store.create(BARE)
    await store.create(msgspec.structs.replace(BARE, vm_id=other))
    with full_disk():
        await store.change(VM, phase=Phase.RUNNING)
        await store.change(other, phase=Phase.RUNNING)
    assert store._payer is not None
    await store._payer
    assert {record.phase for record in Store(str(tmp_path)).load()} == {Phase.RUNNING}


async def test_the_agents_end_waits_for_what_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    await store.create(BARE)
    began, go, real = threading.Event(), threading.Event(), records.write_atomic

    def slow(*given: Any) -> None:
        began.set()
        go.wait(5)
        real(*given)

    monkeypatch.setattr(records, "write_atomic", slow)
    changing = asyncio.create_task(store.change(VM, phase=Phase.RUNNING))
    await asyncio.to_thread(began.wait)
    stopping = asyncio.create_task(store.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    go.set()
    await stopping
    assert on_disk(tmp_path)["phase"] == "running"
    await changing


async def test_the_agents_end_waits_for_no_disk_that_hangs_or_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "STOP_S", 0.02)
    store, go = Store(str(tmp_path)), threading.Event()
    await store.create(BARE)
    with full_disk():
        await store.change(VM, phase=Phase.RUNNING)
    monkeypatch.setattr(records, "write_atomic", lambda *_given: go.wait(5))
    changing = asyncio.create_task(store.change(VM, phase=Phase.DOWN))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(1):
        await store.stop()
    assert not changing.done()
    go.set()
    await changing
    await store.stop()
