# SPDX-License-Identifier: GPL-2.0-or-later
"""Joining a lockspace step by step: what each answer of the lock daemon and each record on the storage means."""

from __future__ import annotations

from typing import Any, cast

import pytest

from storage.errors import HostIdNotAcquired
from storage.leases import HostIdOwner, Leases, Lockspace, joining
from storage.leases.joining import Joining

SPACE = Lockspace("sd", "/sd/ids", 1 << 20, 512, 10)
OTHER = HostIdOwner("other", 3, 100)


class Scripted:
    """The daemon's answers and the storage's, from lists; the last one stays."""

    lockspace = SPACE

    def __init__(self, states: list[bool | None], owners: list[HostIdOwner | None] | None = None) -> None:
        self.states = states
        self.owners = owners or [None]
        self.joins = 0

    async def joined(self, space: Any, host_id: int) -> bool | None:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    async def start_join(self, space: Any, host_id: int) -> None:
        self.joins += 1

    async def host_id_owner(self, host_id: int) -> HostIdOwner | None:
        return self.owners.pop(0) if len(self.owners) > 1 else self.owners[0]


def joins(leases: Scripted) -> Joining:
    return Joining(cast(Leases, leases), leases, 7)


def renewed(owner: HostIdOwner, times: int) -> HostIdOwner:
    return HostIdOwner(owner.name, owner.generation, owner.timestamp + 20 * times)


async def test_joined_already_begins_nothing() -> None:
    leases = Scripted([True])
    assert await joins(leases).step() is True
    assert leases.joins == 0


async def test_begun_under_way_joined() -> None:
    leases = Scripted([False, None, None, True])
    way = joins(leases)
    assert [await way.step(), await way.step(), await way.step()] == [False, False, True]
    assert leases.joins == 1


async def test_a_failure_names_the_owner_and_the_next_step_begins_anew() -> None:
    leases = Scripted([False, None, False, False, None], [OTHER])
    way = joins(leases)
    assert await way.step() is False
    with pytest.raises(HostIdNotAcquired, match=r"Host id 7 in domain sd .* host 'other' holds it"):
        await way.step()
    assert await way.step() is False
    assert leases.joins == 2


@pytest.mark.parametrize("owner", [None, HostIdOwner("old", 1, 0)])
async def test_a_failure_without_an_owner_points_to_the_log(owner: HostIdOwner | None) -> None:
    way = joins(Scripted([False, None, False], [owner]))
    await way.step()
    with pytest.raises(HostIdNotAcquired, match="its log says why"):
        await way.step()


async def test_an_owner_who_renews_is_told_at_its_first_renewal() -> None:
    way = joins(Scripted([False, None], [OTHER, OTHER, renewed(OTHER, 1)]))
    assert await way.step() is False
    with pytest.raises(HostIdNotAcquired, match="'other' holds it and renews it"):
        await way.step()


@pytest.mark.parametrize("ours", [HostIdOwner("us", 3, 200), HostIdOwner("other", 4, 200), HostIdOwner("us", 4, 200)])
async def test_the_record_that_joining_itself_writes_is_no_twin(ours: HostIdOwner) -> None:
    records = [OTHER, OTHER, ours, renewed(ours, 1), renewed(ours, 2)]
    way = joins(Scripted([False, None, None, None, None, True], list(records)))
    assert [await way.step() for _ in range(5)] == [False] * 4 + [True]


async def test_where_another_process_began_only_many_renewals_count() -> None:
    records = [renewed(OTHER, n) for n in range(8)]
    way = joins(Scripted([None], list(records)))
    assert [await way.step() for _ in range(joining.SURE)] == [False] * joining.SURE
    with pytest.raises(HostIdNotAcquired, match="two hosts"):
        await way.step()


async def test_what_another_process_began_before_and_failed_is_begun_anew() -> None:
    """As after storage that was frozen: what ended was a joining of then, or the leaving of what was lost."""
    leases = Scripted([None, None, False, None, True])
    way = joins(leases)
    assert [await way.step() for _ in range(4)] == [False, False, False, True]
    assert leases.joins == 1


async def test_a_dead_owner_is_waited_for() -> None:
    way = joins(Scripted([False, None], [OTHER]))
    assert [await way.step() for _ in range(9)] == [False] * 9


async def test_joining_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "STEP_S", 0.01)
    with pytest.raises(HostIdNotAcquired, match="did not end within"):
        await joining.join(cast(Leases, Scripted([None])), Scripted([None]), 7, timeout_s=0.05)
