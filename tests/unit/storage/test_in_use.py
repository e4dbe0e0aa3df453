# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing that is in use on this host is removed, and nothing that is being removed begins to be used."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from inside import Spm, ids
from local_world import World

from storage.errors import BeingRemoved, IoFailed, VolumesInUse
from storage.holders import PREPARE
from storage.images import Images
from storage.in_use import InUse
from storage.lock_table import Locks
from vdsm.common.ids import new_uuid

D, IMAGE, OTHER = "domain", "image", "other"
VM = "vm:1"


@pytest.fixture
def in_use(tmp_path: Path) -> InUse:
    return InUse(str(tmp_path / "prepared"))


def test_a_used_volume_is_not_removed_and_the_refusal_names_the_users(in_use: InUse) -> None:
    in_use.add(D, IMAGE, VM, ["base", "leaf"])
    in_use.add(D, IMAGE, PREPARE, ["base"])
    with pytest.raises(VolumesInUse, match=r"vm:1") as e, in_use.removing(D, IMAGE, ["leaf"]):
        pass
    assert e.value.users == [VM]
    with pytest.raises(VolumesInUse) as e, in_use.removing(D, IMAGE, ["base"]):
        pass
    assert e.value.users == [PREPARE, VM]
    assert str(e.value).endswith("in use on this host by Image.prepare, vm:1")


def test_an_image_whose_record_cannot_be_read_counts_as_used(in_use: InUse, tmp_path: Path) -> None:
    in_use.add(D, IMAGE, VM, ["leaf"])
    [record] = (tmp_path / "prepared").iterdir()
    record.unlink()
    record.mkdir()
    with pytest.raises(VolumesInUse), in_use.removing(D, IMAGE, ["leaf"]):
        pass


def test_what_an_older_agent_wrote_is_a_use_that_ends_as_todays(in_use: InUse, tmp_path: Path) -> None:
    record = tmp_path / "prepared" / f"{D}_{IMAGE}"
    record.parent.mkdir()
    record.write_text(json.dumps({"prepare": ["leaf"], VM: ["leaf"]}))
    with pytest.raises(VolumesInUse) as e, in_use.removing(D, IMAGE, ["leaf"]):
        pass
    assert e.value.users == [PREPARE, VM]
    in_use.restore(D, IMAGE, in_use.without(D, IMAGE, PREPARE))
    assert json.loads(record.read_text()) == {VM: ["leaf"]}


@pytest.mark.parametrize(
    ("older", "newer", "together"), [(["a"], ["b"], {"a", "b"}), ([], ["b"], set()), (["a"], [], set())]
)
def test_two_names_of_one_user_use_what_both_do(
    in_use: InUse, tmp_path: Path, older: list[str], newer: list[str], together: set[str]
) -> None:
    """None: all of the image, which the volumes of the other do not make less."""
    record = tmp_path / "prepared" / f"{D}_{IMAGE}"
    record.parent.mkdir()
    record.write_text(json.dumps({"prepare": older, PREPARE: newer}))
    assert in_use.users(D, IMAGE) == {PREPARE: together}


def test_another_volume_of_a_used_image_is_removed(in_use: InUse) -> None:
    """As after a live merge: the VM runs on the image whose merged volume goes."""
    in_use.add(D, IMAGE, VM, ["base", "leaf"])
    with in_use.removing(D, IMAGE, ["preview"]):
        pass


def test_a_template_is_used_by_the_users_of_its_clones(in_use: InUse) -> None:
    in_use.add(D, "clone", VM, ["template", "leaf"])
    with pytest.raises(VolumesInUse), in_use.removing(D, IMAGE, ["template"]):
        pass


def test_the_same_ids_in_another_domain_are_others(in_use: InUse) -> None:
    in_use.add("elsewhere", IMAGE, VM, ["leaf"])
    with in_use.removing(D, IMAGE, ["leaf"]):
        pass


def test_what_is_being_removed_is_not_used(in_use: InUse) -> None:
    with in_use.removing(D, IMAGE, ["leaf"]):
        with pytest.raises(BeingRemoved):
            in_use.add(D, IMAGE, VM, ["base", "leaf"])
        in_use.add(D, OTHER, VM, ["base"])
    in_use.add(D, IMAGE, VM, ["base", "leaf"])


def test_a_record_that_cannot_be_read_counts_as_used(in_use: InUse, tmp_path: Path) -> None:
    in_use.add(D, IMAGE, VM, ["leaf"])
    (tmp_path / "prepared" / f"{D}_{IMAGE}").write_text('["vm-1"]')
    with pytest.raises(VolumesInUse, match="cannot be read"), in_use.removing(D, IMAGE, ["leaf"]):
        pass


def test_a_record_that_can_not_be_written_is_refused_with_the_reason(
    in_use: InUse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("storage.in_use.write_atomic", full)
    with pytest.raises(IoFailed, match=rf"{tmp_path}.*No space left on device \(ENOSPC\)"):
        in_use.add(D, IMAGE, VM, ["leaf"])
    assert in_use.images() == []


def test_a_user_of_unknown_volumes_uses_all_of_the_image(in_use: InUse) -> None:
    in_use.add(D, IMAGE, VM, [])
    with pytest.raises(VolumesInUse), in_use.removing(D, IMAGE, ["any"]):
        pass
    with in_use.removing(D, OTHER, ["any"]):
        pass


def test_a_domain_of_which_an_image_is_used_is_refused_with_the_users(in_use: InUse) -> None:
    in_use.check_domain(D)
    in_use.add(D, IMAGE, VM, ["leaf"])
    with pytest.raises(VolumesInUse, match=VM):
        in_use.check_domain(D)
    in_use.check_domain(OTHER)


def test_records_outlive_the_agent(in_use: InUse, tmp_path: Path) -> None:
    in_use.add(D, IMAGE, VM, ["leaf"])
    again = InUse(str(tmp_path / "prepared"))
    assert again.users(D, IMAGE) == {VM: {"leaf"}}
    again.restore(D, IMAGE, again.without(D, IMAGE, VM))
    assert again.images() == []


# Through the SPM


async def test_an_image_of_a_running_vm_is_not_deleted(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume)
    ids = (spm.pool_id, spm.domain_id, image)
    await spm.storage.prepare_image(*ids, volume, consumer="vm:7")
    params = {"domain_id": spm.domain_id, "image_id": image}
    for verb, more in (
        ("image.delete", {"force": False}),
        ("image.delete", {"force": True}),
        ("volume.delete", {"volume_ids": [volume], "force": False}),
        ("volume.delete", {"volume_ids": [volume], "force": True}),
    ):
        status = await spm.finish(await spm.storage.pool.call_spm(verb, {**params, **more}))
        assert (status["code"], status["taskResult"]) == (203, "cleanSuccess"), status
        assert "vm:7" in status["message"]
    assert spm.image_files(image) == {volume, f"{volume}.meta"}
    await spm.storage.teardown_image(*ids, consumer="vm:7")
    status = await spm.finish(await spm.storage.pool.call_spm("image.delete", {**params, "force": False}))
    assert status["taskResult"] == "success"


async def test_a_creation_whose_volume_is_used_is_not_reverted(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    task_id = await spm.start_volume(image, volume)
    await spm.finish(task_id)
    await spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, volume, consumer="vm:7")
    await spm.storage.tasks.revert(task_id)
    status = await spm.finish(task_id)
    assert status["taskResult"] == "cleanFailure"
    assert "vm:7" in status["message"]
    assert spm.image_files(image) == {volume, f"{volume}.meta"}


async def test_what_a_dead_spm_was_removing_can_be_used_again(spm: World) -> None:
    image, volume = new_uuid(), new_uuid()
    await spm.create_volume(image, volume)
    await spm.storage.pool.stop_spm(spm.pool_id)
    await spm.storage.prepare_image(spm.pool_id, spm.domain_id, image, volume)


async def test_a_domain_in_use_is_not_detached_nor_formatted(spm: World) -> None:
    other, folder = new_uuid(), spm.top / "other"
    await spm.create_domain(other, folder)
    spm.storage.in_use.add(other, "image", "vm:7", ["volume"])
    with pytest.raises(VolumesInUse, match="vm:7"):
        await spm.storage.catalogue.format(other)
    await spm.storage.pool_domains.attach(spm.pool_id, other)
    with pytest.raises(VolumesInUse, match="vm:7"):
        await spm.storage.pool_domains.detach(spm.pool_id, other)
    assert f"POOL_UUID={spm.pool_id}\n" in (folder / other / "dom_md" / "metadata").read_text()


async def test_a_failed_prepare_leaves_no_user(inside: Spm, monkeypatch: pytest.MonkeyPatch) -> None:
    image, volume = ids(2)
    await inside.create(image, volume)
    world = inside.world
    images = Images(f"{world.top}/no/such", world.storage.in_use, Locks(), lambda _: None)
    os.makedirs(f"{world.top}/no")
    Path(f"{world.top}/no/such").write_text("no folder")
    with pytest.raises(IoFailed, match="such"):
        await images.prepare(await inside.domains.get(world.domain_id), image, volume)
    assert images.prepared() == []
