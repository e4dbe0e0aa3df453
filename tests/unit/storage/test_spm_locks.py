# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs alone: steps and steps back of a task, changes of metadata, the domain that comes or goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from inside import Spm, ids

from storage import qemu_img
from storage.errors import StorageNotResponding
from storage.file.files import DomainFiles
from storage.file.volumes import FileVolumes
from storage.leases.kept import Kept
from storage.spm.errors import NotSpm
from storage.spm.once import Once
from storage.spm.own_lease import OwnLease


class Stopped:
    """A call that stands still when it is reached, until ``go``; then it goes on or fails."""

    def __init__(self, real: Callable[..., Awaitable[Any]], when: Callable[..., bool] = lambda *_: True) -> None:
        self._real, self._when = real, when
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None

    async def call(self, *args: Any, **named: Any) -> Any:
        if self._when(*args):
            self.reached.set()
            await self.go.wait()
            if self.error is not None:
                raise self.error
        return await self._real(*args, **named)


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool] | None = None) -> Stopped:
    stopped = Stopped(getattr(owner, name), when or (lambda *_: True))

    async def call(*args: Any, **named: Any) -> Any:
        return await stopped.call(*args, **named)

    monkeypatch.setattr(owner, name, call)
    return stopped


def stop_first(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool]) -> Stopped:
    """The calls after it go on: what waits then waits for something else."""
    stopped = stop_at(monkeypatch, owner, name, lambda *args: when(*args) and not stopped.reached.is_set())
    return stopped


async def _still(task: asyncio.Future[Any], seconds: float = 0.1) -> bool:
    done, _ = await asyncio.wait([task], timeout=seconds)
    return not done


async def test_a_second_change_of_an_image_waits_for_the_first(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    image, base, one, two = ids(4)
    await inside.create(image, base)
    making = stop_at(monkeypatch, qemu_img, "create", lambda path, *_: path.endswith(one))
    first = await inside.begin(image, one, base)
    await making.reached.wait()
    deleting = asyncio.ensure_future(inside.delete(image, base, force=True))
    second = asyncio.ensure_future(inside.wait(await inside.begin(image, two)))
    assert await _still(second)
    assert not deleting.done()
    making.go.set()
    assert (await inside.wait(first)).state == "finished"
    await second
    await deleting


async def test_another_image_does_not_wait(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    image, volume, other, free = ids(4)
    making = stop_at(monkeypatch, qemu_img, "create", lambda path, *_: path.endswith(volume))
    first = await inside.begin(image, volume)
    await making.reached.wait()
    await inside.create(other, free)
    making.go.set()
    assert (await inside.wait(first)).state == "finished"


async def test_nothing_changes_an_image_while_a_failed_change_is_undone(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, base, one, two = ids(4)
    await inside.create(image, base)
    making = stop_at(monkeypatch, qemu_img, "create", lambda path, *_: path.endswith(one))
    undoing = stop_first(monkeypatch, FileVolumes, "children", lambda _volumes, _image, volume: volume == base)
    making.error = StorageNotResponding("x", "write", 60.0)
    first = await inside.begin(image, one, base)
    await making.reached.wait()
    making.go.set()
    await undoing.reached.wait()
    second = asyncio.ensure_future(inside.wait(await inside.begin(image, two, base)))
    assert await _still(second)
    undoing.go.set()
    assert (await inside.wait(first)).state == "recovered"
    assert (await second).state == "finished"
    assert inside.roles(image) == {base: "INTERNAL", two: "LEAF"}


async def test_a_revert_waits_for_what_runs_in_its_image(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    image, base, one, two = ids(4)
    await inside.create(image, base)
    made = await inside.create(image, one, base)
    making = stop_at(monkeypatch, qemu_img, "create", lambda path, *_: path.endswith(two))
    second = await inside.begin(image, two, base)
    await making.reached.wait()
    await inside.serve("task.revert", {"task_id": made})
    assert await inside.serve("task.status", {"task_id": made})
    assert await _still(asyncio.ensure_future(inside.wait(made)))
    assert one in [p.name for p in (inside.path / "images" / image).iterdir()]
    making.go.set()
    assert (await inside.wait(second)).state == "finished"
    assert (await inside.wait(made)).state == "recovered"
    assert inside.roles(image) == {base: "INTERNAL", two: "LEAF"}


async def test_a_task_of_a_dead_spm_is_undone_before_a_new_change_of_its_image(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a dead domain lets the gate open before it is undone."""
    monkeypatch.setattr("storage.spm.role.PATIENCE_S", 0.05)
    image, base, one, two = ids(4)
    await inside.create(image, base)
    making = stop_at(monkeypatch, qemu_img, "create", lambda path, *_: path.endswith(one))
    first = await inside.begin(image, one, base)
    await making.reached.wait()
    await inside.stop()
    next_spm = Spm(inside.world)
    undoing = stop_first(monkeypatch, FileVolumes, "children", lambda _volumes, _image, volume: volume == base)
    await next_spm.start()
    await undoing.reached.wait()
    begun = stop_at(monkeypatch, qemu_img, "create", lambda path, *_: path.endswith(two))
    begun.go.set()
    second = asyncio.ensure_future(next_spm.wait(await next_spm.begin(image, two, base)))
    assert await _still(second, 1.0)
    assert not begun.reached.is_set()
    undoing.go.set()
    assert (await second).state == "finished"
    assert next_spm.server.role.tasks.status(first)["taskResult"] == "cleanSuccess"
    assert next_spm.roles(image) == {base: "INTERNAL", two: "LEAF"}
    await next_spm.stop()


async def test_a_template_is_kept_while_it_is_cloned(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    template, base, image, volume = ids(4)
    await inside.create(template, base)
    making = stop_at(monkeypatch, qemu_img, "create", lambda path, *_: path.endswith(volume))
    cloning = await inside.begin(image, volume, base, template)
    await making.reached.wait()
    deleting = asyncio.ensure_future(inside.delete_image(template))
    assert await _still(deleting)
    making.go.set()
    assert (await inside.wait(cloning)).state == "finished"
    outcome = (await deleting).outcome
    assert outcome is not None
    assert outcome.code == 223


async def test_two_clones_of_a_template_are_made_at_once(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    template, base, first, slow, second, quick = ids(6)
    await inside.create(template, base)
    await inside.create(*ids(2), base, template)
    making = stop_at(monkeypatch, qemu_img, "create", lambda path, *_: path.endswith(slow))
    cloning = await inside.begin(first, slow, base, template)
    await making.reached.wait()
    await inside.create(second, quick, base, template)
    making.go.set()
    assert (await inside.wait(cloning)).state == "finished"


@pytest.mark.parametrize("verb", ["volume.describe", "volume.set_legality"])
async def test_a_verb_that_writes_metadata_waits_for_a_task(
    inside: Spm, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    image, base, one = ids(3)
    await inside.create(image, base)
    making = stop_at(monkeypatch, qemu_img, "create", lambda path, *_: path.endswith(one))
    task_id = await inside.begin(image, one, base)
    await making.reached.wait()
    params = {"domain_id": inside.world.domain_id, "image_id": image, "volume_id": base}
    writing = asyncio.ensure_future(inside.serve(verb, {**params, "description": "new", "legality": "ILLEGAL"}))
    assert await _still(writing)
    making.go.set()
    await inside.wait(task_id)
    await writing
    assert inside.roles(image)[base] == "INTERNAL"


async def test_two_changes_of_a_domains_metadata_lose_nothing(inside: Spm) -> None:
    master = inside.world.domain_id
    renaming = inside.serve("domain.rename", {"domain_id": master, "description": "new name"})
    mapping = inside.serve("pool.write_map", {"domains": {master: "Attached"}})
    await asyncio.gather(renaming, mapping)
    text = (inside.path / "dom_md" / "metadata").read_text()
    assert "DESCRIPTION=new name\n" in text
    assert f"POOL_DOMAINS={master}:Attached\n" in text


async def test_attaching_needs_the_lease_of_the_domain(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    other, folder = ids(1)[0], inside.world.top / "other"
    await inside.world.create_domain(other, folder)
    steps: list[str] = []

    async def told(step: str) -> None:
        steps.append(step)

    once = Once(OwnLease(inside.domains, inside.pools, Kept(), inside.world.paths.leased), inside.domains, told)
    domain = await inside.domains.get(other)
    held: list[bool] = []
    write = DomainFiles.write_metadata

    async def looked(files: DomainFiles, metadata: Any) -> None:
        held.append(await domain.leases.held(domain.sdm_lease))
        await write(files, metadata)

    monkeypatch.setattr(DomainFiles, "write_metadata", looked)
    await once.attach(inside.world.pool_id, 1, other, 5)
    assert held == [True]
    await once.stop()
    assert not await domain.leases.held(domain.sdm_lease)


async def test_a_change_that_is_interrupted_writes_nothing_after_its_lease_is_given_back(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, folder = ids(1)[0], inside.world.top / "other"
    await inside.world.create_domain(other, folder)
    ended: list[bool] = []

    class Watched(OwnLease):
        async def give_back(self) -> None:
            ended.append(attaching.done())
            await super().give_back()

    async def unheard(_step: str) -> None:
        return

    once = Once(Watched(inside.domains, inside.pools, Kept(), inside.world.paths.leased), inside.domains, unheard)
    writing = stop_at(monkeypatch, DomainFiles, "write_metadata")
    params = {"pool_id": inside.world.pool_id, "host_id": 1, "domain_id": other, "master_version": 5}
    attaching = asyncio.ensure_future(once.serve("domain.attach", params))
    await writing.reached.wait()
    async with asyncio.timeout(5):
        await once.stop()
    writing.go.set()
    assert attaching.cancelled()
    assert ended == [True]
    assert "POOL_UUID=\n" in (folder / other / "dom_md" / "metadata").read_text()


async def test_what_still_runs_is_interrupted_before_the_lease_is_released(
    inside: Spm, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, volume = ids(2)
    await inside.create(image, volume)
    writing = stop_at(monkeypatch, FileVolumes, "write")
    params = {"domain_id": inside.world.domain_id, "image_id": image, "volume_id": volume, "description": "late"}
    serving = asyncio.ensure_future(inside.serve("volume.describe", params))
    await writing.reached.wait()
    await inside.server.stop()
    writing.go.set()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert inside.images()[image][volume].fields["DESCRIPTION"] == ""


@pytest.mark.parametrize(
    ("verb", "params"),
    [
        ("domain.rename", {"description": "d"}),
        ("volume.describe", {"image_id": "i", "volume_id": "v", "description": "d"}),
        ("volume.set_legality", {"image_id": "i", "volume_id": "v", "legality": "LEGAL"}),
        ("domain.detach", {}),
        ("pool.write_map", {"domains": {}}),
        ("pool.destroy", {"domain_ids": []}),
        ("volume.create", {"source_image_id": "", "volume": {}}),
        ("image.delete", {"image_id": "i"}),
        ("task.all", {}),
    ],
)
async def test_a_closed_gate_refuses_every_change(inside: Spm, verb: str, params: dict[str, Any]) -> None:
    inside.server.role.close_gate()
    with pytest.raises(NotSpm):
        await inside.serve(verb, {"domain_id": inside.world.domain_id, **params})
