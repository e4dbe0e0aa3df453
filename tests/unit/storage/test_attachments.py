# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains that come to a pool and leave it: in which order, and what another host did meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inside import Spm
from local_world import World

from storage.errors import IoFailed
from storage.file.domain import FileDomain
from storage.file.files import DomainFiles
from storage.leases import presence
from storage.leases.kept import Kept
from storage.spm.errors import DomainAttached, DomainHasPool, DomainIsMaster, DomainNotInPool
from storage.spm.once import Once
from storage.spm.own_lease import OwnLease
from vdsm.common.ids import new_uuid

ELSEWHERE = new_uuid()


def _fields(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (path / "dom_md" / "metadata").read_text().splitlines())


@pytest.fixture
async def second(inside: Spm) -> Path:
    """A second domain of the pool."""
    domain_id = new_uuid()
    folder = inside.world.top / "second"
    await inside.world.create_domain(domain_id, folder)
    await (await inside.domains.get(domain_id)).change_metadata(lambda _: {"POOL_UUID": inside.pool_id})
    return folder / domain_id


async def test_a_pool_that_cannot_be_taken_from_one_domain_has_its_master_still(
    inside: Spm, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = DomainFiles.write_metadata

    async def refused(files: DomainFiles, metadata: Any) -> None:
        if files.domain_id == second.name:
            raise IoFailed("write", "metadata", "EIO", "Input/output error")
        await write(files, metadata)

    ids = {"domain_ids": [inside.domain_id, second.name]}
    with monkeypatch.context() as patched:
        patched.setattr(DomainFiles, "write_metadata", refused)
        with pytest.raises(IoFailed):
            await inside.serve("pool.destroy", dict(ids))
    assert (_fields(inside.path)["ROLE"], _fields(inside.path)["POOL_UUID"]) == ("Master", inside.pool_id)
    await inside.serve("pool.destroy", dict(ids))
    for path in (inside.path, second):
        assert (_fields(path)["ROLE"], _fields(path)["POOL_UUID"]) == ("Regular", "")


async def test_a_domain_of_another_pool_is_not_touched_when_a_pool_ends(inside: Spm, second: Path) -> None:
    domain = await inside.domains.get(second.name)
    await domain.change_metadata(lambda _: {"POOL_UUID": ELSEWHERE})
    before = (second / "dom_md" / "metadata").read_bytes()
    await inside.serve("pool.destroy", {"domain_ids": [inside.domain_id, second.name]})
    assert (second / "dom_md" / "metadata").read_bytes() == before


async def test_the_master_does_not_leave_its_pool_whoever_asks(inside: Spm, second: Path) -> None:
    before = (inside.path / "dom_md" / "metadata").read_bytes()
    with pytest.raises(DomainIsMaster, match=inside.domain_id):
        await inside.serve("domain.detach", {"domain_id": inside.domain_id})
    assert (inside.path / "dom_md" / "metadata").read_bytes() == before
    await inside.serve("domain.detach", {"domain_id": second.name})
    assert _fields(second)["POOL_UUID"] == ""
    with pytest.raises(DomainNotInPool, match=second.name):
        await inside.serve("domain.detach", {"domain_id": second.name})


async def _unheard(_step: str) -> None:
    return


class Meanwhile(OwnLease):
    """Another host attaches the domain while this one waits for its lease."""

    async def take(self, domain: Any, host_id: int, *, timeout_s: float) -> int:
        version = await super().take(domain, host_id, timeout_s=timeout_s)
        await domain.change_metadata(lambda _: {"POOL_UUID": ELSEWHERE})
        return version


CHANGES: dict[str, Callable[[str], dict[str, Any]]] = {
    "pool.create": lambda domain_id: {
        "name": "n",
        "master_id": domain_id,
        "master_version": 1,
        "domain_ids": [domain_id],
        "lease_fields": {},
    },
    "pool.reconstruct": lambda domain_id: {
        "host_id": 1,
        "name": "n",
        "master_id": domain_id,
        "master_version": 1,
        "domains": {domain_id: "Active"},
        "lease_fields": {},
    },
    "domain.attach": lambda domain_id: {"host_id": 1, "domain_id": domain_id, "master_version": 5},
}


@pytest.mark.parametrize("verb", CHANGES)
async def test_what_another_host_attached_meanwhile_is_not_taken_from_it(inside: Spm, second: Path, verb: str) -> None:
    domain = await inside.domains.get(second.name)
    await domain.change_metadata(lambda _: {"POOL_UUID": ""})
    lease = Meanwhile(inside.domains, inside.pools, Kept(), inside.world.paths.leased)
    with pytest.raises(DomainHasPool, match=ELSEWHERE):
        await Once(lease, inside.domains, _unheard).serve(verb, {"pool_id": new_uuid(), **CHANGES[verb](second.name)})
    assert (_fields(second)["ROLE"], _fields(second)["POOL_UUID"]) == ("Regular", ELSEWHERE)
    await domain.leases.release(domain.sdm_lease)


async def test_what_another_host_attached_while_hosts_were_looked_for_is_not_formatted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain_id = new_uuid()
    await world.create_domain(domain_id, world.top / "second")

    async def attached(domain: Any) -> dict[int, Any]:
        await domain.change_metadata(lambda _: {"POOL_UUID": ELSEWHERE})
        return {}

    monkeypatch.setattr(presence, "alive", attached)
    with pytest.raises(DomainAttached, match=ELSEWHERE):
        await world.storage.catalogue.format(domain_id)
    assert _fields(world.top / "second" / domain_id)["POOL_UUID"] == ELSEWHERE


async def test_a_domain_whose_format_fails_is_opened_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    domain_id = new_uuid()
    await world.create_domain(domain_id, world.top / "second")
    before = await world.storage.domains.get(domain_id)

    async def fails(_domain: FileDomain) -> None:
        raise IoFailed("remove", "metadata", "EIO", "Input/output error")

    monkeypatch.setattr(FileDomain, "format", fails)
    with pytest.raises(IoFailed):
        await world.storage.catalogue.format(domain_id)
    assert world.storage.domains.opened(domain_id) is None
    assert await world.storage.domains.get(domain_id) is not before
