# SPDX-License-Identifier: GPL-2.0-or-later
"""Images prepared and torn down, on a domain in memory: the order of record, attachment and link, and the way back."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from memory_domain import MemoryDomain, MemoryStorage
from memory_faults import Stopped
from memory_volumes import qcow2_head

from storage.domain import Domain
from storage.errors import BeingRemoved, IoFailed, StorageNotResponding, UnsafeImage, VolumeNotFound, VolumesInUse
from storage.images import Images, VolumeIllegal, attached_for_a_while
from storage.in_use import InUse
from storage.lock_table import Locks
from storage.new_volume import NewVolume
from storage.ondisk.values import Allocation, Legality, VolumeFormat
from vdsm.common.ids import new_uuid

MIB = 1 << 20


class Host:
    """One image of two volumes, and the host that prepares it."""

    def __init__(self, top: Path) -> None:
        self.storage = MemoryStorage()
        self.domain: MemoryDomain = self.storage.open()
        self.domain_id = self.domain.domain_id
        self.opened: Domain | None = self.domain
        self.links = top / "links"
        self.in_use = InUse(str(top / "prepared"))
        self.images = Images(str(self.links), self.in_use, Locks(), lambda _: self.opened)
        self.image, self.base, self.top = (new_uuid() for _ in range(3))

    async def make(self) -> None:
        raw = NewVolume(self.image, self.base, MIB, VolumeFormat.RAW, Allocation.SPARSE)
        cow = NewVolume(self.image, self.top, MIB, VolumeFormat.COW, Allocation.SPARSE, parent_id=self.base)
        for wanted in (raw, cow):
            await self.domain.volumes.create(wanted)

    async def prepare(self, consumer: str = "vm:1", **how: bool) -> str:
        return (await self.images.prepare(self.domain, self.image, self.top, consumer=consumer, **how)).path

    async def teardown(self, consumer: str = "vm:1") -> None:
        await self.images.teardown(self.domain_id, self.image, consumer=consumer)

    @property
    def users(self) -> dict[str, frozenset[str]]:
        return dict(self.in_use.users(self.domain_id, self.image))

    @property
    def linked(self) -> bool:
        return os.path.lexists(self.links / self.domain_id / self.image)

    @property
    def attached(self) -> dict[str, set[str]]:
        return {holder: {volume for _, volume in had} for holder, had in self.storage.stored.attached.items()}

    def is_free(self) -> bool:
        return (self.users, self.linked, self.attached) == ({}, False, {})


@pytest.fixture
async def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    await made.make()
    return made


async def test_a_prepared_image_is_on_record_attached_and_linked(host: Host) -> None:
    prepared = await host.images.prepare(host.domain, host.image, host.top, consumer="vm:1")
    folder = f"{host.domain.folder}/images/{host.image}"
    assert (prepared.path, prepared.kind, prepared.format) == (f"{folder}/{host.top}", "block", "cow")
    assert [(volume.volume_id, volume.path) for volume in prepared.chain] == [
        (volume, f"{folder}/{volume}") for volume in (host.base, host.top)
    ]
    assert host.users == {"vm:1": frozenset({host.base, host.top})}
    assert host.attached == {"vm:1": {host.base, host.top}}
    assert os.readlink(host.links / host.domain_id / host.image) == folder


async def test_the_record_comes_before_the_attachment_and_the_link_after_it(host: Host) -> None:
    attaching = host.domain.faults.stop("attach")
    preparing = asyncio.ensure_future(host.prepare())
    await attaching.reached.wait()
    assert (list(host.users), host.linked, host.attached) == (["vm:1"], False, {})
    with pytest.raises(VolumesInUse, match="vm:1"), host.in_use.removing(host.domain_id, host.image, [host.top]):
        pass
    attaching.go.set()
    await preparing
    assert host.linked


async def test_a_teardown_goes_back_in_the_other_order(host: Host) -> None:
    await host.prepare()
    detaching = host.domain.faults.stop("detach")
    leaving = asyncio.ensure_future(host.teardown())
    await detaching.reached.wait()
    assert (list(host.users), host.linked, list(host.attached)) == (["vm:1"], False, ["vm:1"])
    detaching.go.set()
    await leaving
    assert host.is_free()


async def test_what_cannot_be_detached_stays_on_record_until_it_is(host: Host) -> None:
    await host.prepare()
    host.domain.faults.fail("detach", IoFailed("lvchange", "x", "EIO", "broken"))
    with pytest.raises(IoFailed):
        await host.teardown()
    assert list(host.users) == ["vm:1"]
    host.domain.faults.heal()
    await host.teardown()
    assert host.is_free()


async def test_an_image_stays_for_its_other_consumer(host: Host) -> None:
    await host.prepare("vm:1")
    await host.prepare("vm:2")
    await host.teardown("vm:1")
    assert (list(host.users), host.linked, list(host.attached)) == (["vm:2"], True, ["vm:2"])
    await host.teardown("vm:2")
    assert host.is_free()


async def test_a_teardown_of_a_domain_that_is_not_open_asks_no_storage(host: Host) -> None:
    await host.prepare()
    host.opened = None
    asked = len(host.domain.faults.calls)
    await host.teardown()
    assert (host.users, host.linked, len(host.domain.faults.calls)) == ({}, False, asked)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_teardown_of_what_was_not_prepared_changes_nothing(host: Host, times: int) -> None:
    await host.prepare("vm:1")
    for _ in range(times):
        await host.teardown("vm:2")
    assert (list(host.users), host.linked, list(host.attached)) == (["vm:1"], True, ["vm:1"])


@pytest.mark.parametrize("fault", ["attach", "silent", "unsafe", "link"])
async def test_a_prepare_that_fails_leaves_nothing(host: Host, fault: str) -> None:
    faults, stored = host.domain.faults, host.storage.stored.images[host.image]
    if fault == "unsafe":
        stored[host.top].volume.head = qcow2_head(MIB, "/etc/passwd", "raw")
    elif fault == "link":
        host.links.write_text("no folder")
    else:
        error = IoFailed("lvchange", "x", "EIO", "broken") if fault == "attach" else StorageNotResponding("x", "y", 1)
        faults.fail("attach", error)
    with pytest.raises((UnsafeImage, IoFailed, StorageNotResponding)):
        await host.prepare()
    assert host.is_free()


async def test_a_prepare_that_fails_takes_nothing_from_who_had_it(host: Host) -> None:
    await host.prepare("vm:1")
    host.storage.stored.images[host.image][host.top].volume.head = qcow2_head(MIB, "/etc/passwd", "raw")
    for consumer in ("vm:1", "vm:2"):
        with pytest.raises(UnsafeImage):
            await host.prepare(consumer)
    assert (list(host.users), host.linked, list(host.attached)) == (["vm:1"], True, ["vm:1"])


async def test_a_prepare_that_is_cancelled_leaves_nothing(host: Host) -> None:
    attaching: Stopped = host.domain.faults.stop("attach")
    preparing = asyncio.ensure_future(host.prepare())
    await attaching.reached.wait()
    preparing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await preparing
    assert host.is_free()


async def test_an_illegal_volume_is_refused_before_it_is_on_record(host: Host) -> None:
    volumes = host.domain.volumes
    found = await volumes.read(host.image, host.base)
    await volumes.write(host.image, host.base, replace(found, legality=Legality.ILLEGAL))
    with pytest.raises(VolumeIllegal):
        await host.prepare()
    assert "attach" not in host.domain.faults.calls
    assert await host.prepare(allow_illegal=True)


async def test_what_is_being_removed_is_not_prepared(host: Host) -> None:
    with (
        host.in_use.removing(host.domain_id, host.image, [host.base]),
        pytest.raises(BeingRemoved),
    ):
        await host.prepare()
    assert host.is_free()
    assert await host.prepare()


async def test_payloads_are_attached_for_a_look_and_given_back(host: Host) -> None:
    async with attached_for_a_while(host.domain, host.image, [host.top]) as attached:
        (holder,) = host.attached
        assert holder.startswith("job:") and set(attached.payloads) == {host.top}
    assert host.is_free()
    with pytest.raises(VolumeNotFound):
        async with attached_for_a_while(host.domain, host.image, [host.top, new_uuid()]):
            pass
    assert host.is_free()
