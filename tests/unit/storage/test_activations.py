# SPDX-License-Identifier: GPL-2.0-or-later
"""Conversions of an SPM: one upgrade at a time, each alone on its domain, seen through when the role ends."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from storage import locks
from storage.errors import IoFailed
from storage.lock_table import Locks
from storage.ondisk.values import DomainClass, DomainRole, FormatVersion
from storage.spm.activations import Activations
from storage.spm.errors import UpgradeRunning

LED = SimpleNamespace(pool_id="pool", master_id="master")


class Slow:
    """A domain whose conversion begins, and ends when it is told."""

    domain_class = DomainClass.DATA

    def __init__(self, domain_id, version=3):
        self.domain_id = domain_id
        self.version = FormatVersion(version)
        self.began, self.may_end = asyncio.Event(), asyncio.Event()
        self.fails = False

    async def read_metadata(self):
        return SimpleNamespace(version=self.version, role=DomainRole.REGULAR, domain_id=self.domain_id, pools=["pool"])

    async def convert(self, version):
        self.began.set()
        await self.may_end.wait()
        if self.fails:
            raise IoFailed("write_atomic", self.domain_id, "EIO", "dead")
        self.version = FormatVersion(version)
        return True


@pytest.fixture
async def pool():
    found = {name: Slow(name) for name in ("master", "second", "third")}

    async def get(domain_id):
        return found[domain_id]

    held = Locks()
    return SimpleNamespace(**found, held=held, activations=Activations(SimpleNamespace(get=get), held, LED))


async def test_a_second_upgrade_is_refused_while_one_runs(pool):
    first = asyncio.ensure_future(pool.activations.upgrade("pool", pool.master, 5, ["second"]))
    await pool.master.began.wait()
    with pytest.raises(UpgradeRunning, match="pool"):
        await pool.activations.upgrade("pool", pool.master, 5, [])
    pool.master.may_end.set()
    await first
    await pool.second.began.wait()
    with pytest.raises(UpgradeRunning):  # the others are not done yet
        await pool.activations.upgrade("pool", pool.master, 5, [])
    pool.second.may_end.set()
    await pool.activations.stop()
    await pool.activations.upgrade("pool", pool.master, 5, [])


async def test_others_that_are_only_looked_at_refuse_no_upgrade(pool):
    """As right after the role's start, and for as long as one of them does not answer."""
    silent = asyncio.Event()
    pool.second.read_metadata = silent.wait
    pool.activations.begin(["second"], 4)
    pool.master.may_end.set()
    await pool.activations.upgrade("pool", pool.master, 5, [])
    assert pool.master.version == FormatVersion.V5
    await pool.activations.stop()


async def test_the_others_wait_for_their_locks_and_not_for_each_other(pool):
    async with pool.held.hold([locks.domain("second")], who="a task"):
        pool.activations.begin(["second", "third"], 5)
        await pool.third.began.wait()
        assert not pool.second.began.is_set()
    await pool.second.began.wait()
    for domain in (pool.second, pool.third):
        domain.may_end.set()
    await pool.activations.stop()


async def test_a_role_that_ends_waits_for_what_is_being_converted_and_drops_the_rest(pool):
    async with pool.held.hold([locks.domain("third")], who="a task"):
        pool.activations.begin(["second", "third"], 5)
        await pool.second.began.wait()
        stopping = asyncio.ensure_future(pool.activations.stop())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not stopping.done()
        pool.second.may_end.set()
        await stopping
    assert (pool.second.version, pool.third.version) == (5, 3)
    assert not pool.third.began.is_set()


async def test_a_domain_that_fails_costs_no_other(pool, caplog):
    pool.second.fails = True
    for domain in (pool.second, pool.third):
        domain.may_end.set()
    pool.activations.begin(["second", "third"], 5)
    while "third is of version 5" not in caplog.text or "domain second" not in caplog.text:
        await asyncio.sleep(0)
    assert "domain second was not brought to what its pool needs" in caplog.text


async def test_a_failure_while_the_role_ends_is_told_too(pool, caplog):
    pool.second.fails = True
    pool.activations.begin(["second"], 5)
    await pool.second.began.wait()
    stopping = asyncio.ensure_future(pool.activations.stop())
    await asyncio.sleep(0)
    pool.second.may_end.set()
    await stopping
    assert "domain second was not converted: " in caplog.text


async def test_who_asked_for_a_domain_hears_of_its_failure_and_its_lock_is_free_again(pool):
    pool.second.fails = True
    pool.second.may_end.set()
    with pytest.raises(IoFailed):
        await pool.activations.prepare("second", 5)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1), pool.held.hold([locks.domain("second", locks.Mode.EXCLUSIVE)], who="me"):
            return
    pytest.fail("the lock is held")
