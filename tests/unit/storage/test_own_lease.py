# SPDX-License-Identifier: GPL-2.0-or-later
"""A lease that is not to be had says who has it, as far as anybody knows; one whose writer hangs is not given back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from memory_domain import MemoryDomain, MemoryStorage
from memory_faults import Faults
from memory_leases import MemoryLeases
from memory_source import MemorySource

from storage.domains import Domains
from storage.errors import LeaseError, LeaseHeld, StorageNotResponding
from storage.file.iopool import IoPools
from storage.leases import HostIdOwner, Lease, LeaseOwner
from storage.leases.kept import Kept
from storage.spm.errors import WritersLeft
from storage.spm.own_lease import OwnLease
from vdsm.common import hanging
from vdsm.common.errors import DeadlineExceeded

OURS = 1


class Taken(MemoryLeases):
    """Somebody has every lease; ``owned`` is what the daemon says of that."""

    def __init__(self, owned: list[LeaseOwner] | Exception) -> None:
        super().__init__()
        self.owned = owned

    async def acquire(self, lease: Lease, *, timeout_s: float) -> int:
        raise LeaseHeld(str(lease))

    async def owners(self, lease: Lease) -> list[LeaseOwner]:
        assert lease.resource == "SDM"
        if isinstance(self.owned, Exception):
            raise self.owned
        return self.owned


class Shared(MemoryDomain):
    """A domain whose hosts have names, but for number 4, whose record can't be read."""

    async def host_id_owner(self, host_id: int) -> HostIdOwner | None:
        if host_id == 4:
            raise StorageNotResponding("ids", "read", 60.0)
        return {2: HostIdOwner("host-two", 1, 100), 3: HostIdOwner("", 1, 100)}.get(host_id)


def _domain(leases: MemoryLeases) -> MemoryDomain:
    made = Shared(MemoryStorage(), Faults())
    made.leases = leases
    return made


def _own(domain: MemoryDomain, folder: Path) -> OwnLease:
    return OwnLease(Domains(MemorySource(domain)), IoPools(), Kept(), str(folder))


@pytest.mark.parametrize(
    ("owned", "said"),
    [
        ([LeaseOwner(2, 1)], "is held by the host with id 2 (host-two): it is SPM"),
        ([LeaseOwner(OURS, 1), LeaseOwner(2, 1)], "is held by the host with id 2 (host-two): it is SPM"),
        ([LeaseOwner(3, 1)], "is held by the host with id 3: it is SPM"),
        ([LeaseOwner(5, 1)], "is held by the host with id 5: it is SPM"),
        ([LeaseOwner(4, 1)], "is held by another host or process"),
        ([LeaseOwner(OURS, 1)], "is held by another host or process"),
        ([], "is held by another host or process"),
        (LeaseError("read owners", "l", 5, "EIO"), "is held by another host or process"),
        (DeadlineExceeded("read owners", 60), "is held by another host or process"),
    ],
)
async def test_a_lease_of_somebody_else_is_refused_with_all_that_is_known(
    tmp_path: Path, owned: list[LeaseOwner] | Exception, said: str
) -> None:
    domain = _domain(Taken(owned))
    with pytest.raises(LeaseHeld) as refused:
        await _own(domain, tmp_path).take(domain, OURS, timeout_s=5)
    assert f"Lease {domain.domain_id}:SDM {said}" in str(refused.value)


@pytest.fixture
def left() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("owned", [[LeaseOwner(OURS, 1)], []])
async def test_a_lease_that_writers_of_this_host_keep_names_them(
    tmp_path: Path, left: subprocess.Popen[bytes], owned: list[LeaseOwner]
) -> None:
    domain = _domain(Taken(owned))
    (tmp_path / domain.domain_id).write_text(f"{left.pid}\n")
    with pytest.raises(WritersLeft, match=rf"process {left.pid}: .*{left.pid}"):
        await _own(domain, tmp_path).take(domain, OURS, timeout_s=5)


async def test_who_took_a_lease_last_is_on_record(tmp_path: Path) -> None:
    domain, folder = _domain(MemoryLeases()), tmp_path / "leased"
    assert await _own(domain, folder).take(domain, OURS, timeout_s=5) == 1
    assert [record.name for record in folder.iterdir()] == [domain.domain_id]


async def test_a_lease_whose_record_can_not_be_written_is_taken_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "leased").touch()
    domain = _domain(MemoryLeases())
    assert await _own(domain, tmp_path / "leased").take(domain, OURS, timeout_s=5) == 1


@pytest.mark.parametrize(
    ("here", "ours", "kept"),
    [(True, True, True), (False, True, False), (True, False, False)],
    ids=["a writer", "elsewhere", "of another process"],
)
async def test_a_lease_goes_alone_unless_a_writer_of_its_domain_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: subprocess.Popen[bytes], here: bool, ours: bool, kept: bool
) -> None:
    domain = _domain(MemoryLeases())
    own = _own(domain, tmp_path)
    await own.take(domain, OURS, timeout_s=5)
    place, pid = domain.place if here else "/elsewhere", os.getpid() if ours else left.pid
    monkeypatch.setattr(hanging, "pids", lambda asked: [pid] if asked == place else [])
    await own.release()
    assert await domain.leases.held(domain.sdm_lease) is kept
