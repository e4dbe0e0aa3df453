# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock of domains of version 0: one tag on the disk, two who want it."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import InvalidContent, LeaseHeld, StorageError
from storage.file.io import FileIo
from storage.file.safelease import SafeLease
from storage.leases import Lease
from storage.ondisk import safelease
from vdsm.common.errors import DeadlineExceeded

IO_TIMEOUT_S = 0.02
FREE = b"------FREE------0000000000000000" + bytes(480)


@pytest.fixture
async def io(tmp_path):
    made = FileIo(str(tmp_path))
    yield made
    await made.close()


@pytest.fixture
async def lease(tmp_path, io):
    path = str(tmp_path / "leases")
    await io.create(path)
    lease = Lease("domain", "SDM", path, 1 << 20, 1 << 20, 512)
    await one(io).format_lease(lease)
    return lease


def one(io):
    return SafeLease(io, io_timeout_s=IO_TIMEOUT_S)


def on_disk(lease):
    with open(lease.path, "rb") as f:
        return f.read()


def put(lease, tag):
    with open(lease.path, "r+b") as f:
        f.write(tag.ljust(512, b"\0"))


async def test_a_new_lock_is_free_byte_for_byte(lease):
    assert on_disk(lease) == FREE


async def test_it_is_taken_and_given_back(io, lease):
    lock = one(io)
    await lock.acquire(lease, timeout_s=5)
    assert await lock.held(lease)
    tag = on_disk(lease)
    assert len(tag) == 512
    assert not any(tag[32:])
    assert int(tag[16:32], 16) > 10**15  # microseconds since 1970
    await lock.acquire(lease, timeout_s=5)
    assert on_disk(lease) == tag
    await lock.release(lease)
    assert not await lock.held(lease)
    assert on_disk(lease) == FREE


async def test_of_two_who_find_it_free_one_gets_it(io, lease):
    locks = [one(io), one(io)]  # one helper serves both in turn: each has read before either writes
    results = await asyncio.gather(*(lock.acquire(lease, timeout_s=5) for lock in locks), return_exceptions=True)
    assert sorted(type(r) for r in results if not isinstance(r, int)) == [LeaseHeld]
    assert [await lock.held(lease) for lock in locks].count(True) == 1


async def test_one_that_another_renews_is_refused_by_name(io, lease):
    put(lease, b"7               %016x" % 1)

    async def renew():
        for stamp in range(2, 100):
            put(lease, b"7               %016x" % stamp)
            await asyncio.sleep(IO_TIMEOUT_S)

    renewing = asyncio.ensure_future(renew())
    try:
        with pytest.raises(LeaseHeld, match="held by 7"):
            await one(io).acquire(lease, timeout_s=5)
    finally:
        renewing.cancel()
    assert on_disk(lease).startswith(b"7  ")


async def test_one_that_nobody_renews_is_taken_over(io, lease):
    put(lease, b"1               %016x" % 1)
    lock = one(io)
    await lock.acquire(lease, timeout_s=5)
    assert await lock.held(lease)


async def test_what_was_taken_over_is_not_given_back(io, lease):
    lock = one(io)
    await lock.acquire(lease, timeout_s=5)
    put(lease, b"7               %016x" % 9)
    await lock.release(lease)
    assert on_disk(lease).startswith(b"7  ")


async def test_waiting_for_a_dead_owner_ends_with_its_deadline(io, lease):
    put(lease, b"1               %016x" % 1)
    with pytest.raises(DeadlineExceeded, match="domain:SDM"):
        await one(io).acquire(lease, timeout_s=0.05)
    assert on_disk(lease).startswith(b"1  ")


@pytest.mark.parametrize("content", [b"", b"x" * 512, b"1" + bytes(511)])
async def test_what_is_no_tag_is_not_written_over(io, lease, content):
    with open(lease.path, "wb") as f:
        f.write(content)
    with pytest.raises(InvalidContent, match="leases"):
        await one(io).acquire(lease, timeout_s=5)
    assert on_disk(lease) == content


@given(st.from_regex(r"[!-~]{1,16}", fullmatch=True), st.integers(0, (1 << 64) - 1))
def test_an_owner_comes_back(owner, stamp):
    block = safelease.encode(owner, stamp)
    assert len(block) == 512
    assert safelease.owner(block, "x") == owner


@given(st.binary(max_size=64))
def test_any_bytes_as_a_tag_give_an_owner_or_a_storage_error(data):
    with contextlib.suppress(StorageError):
        assert safelease.owner(data, "x").isprintable()


def test_nothing_longer_than_its_half_of_the_tag_is_an_owner():
    for owner in ("x" * 17, "a b"):
        with pytest.raises(ValueError, match="no tag"):
            safelease.encode(owner, 1)
