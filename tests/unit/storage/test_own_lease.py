# SPDX-License-Identifier: GPL-2.0-or-later
"""The lease of a leased process: what it can't go on with it has not."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory_domain import MemoryStorage
from memory_faults import Faults
from memory_source import MemorySource

from storage.domains import Domains
from storage.file.iopool import IoPools
from storage.leases import records
from storage.leases.kept import Kept
from storage.spm.own_lease import OwnLease


async def test_a_lease_that_its_taker_cannot_go_on_with_is_released_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = MemoryStorage().open(Faults())
    lease = OwnLease(Domains(MemorySource(domain)), IoPools(), Kept(), str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "write", full)
    with pytest.raises(OSError, match="No space left"):
        await lease.take(domain, 1, timeout_s=5)
    assert await domain.leases.held(domain.sdm_lease) is False


async def test_a_full_run_folder_costs_the_record_and_not_the_lease(tmp_path: Path) -> None:
    domain = MemoryStorage().open(Faults())
    (tmp_path / "no folder").write_text("")  # nothing can be made below it
    lease = OwnLease(Domains(MemorySource(domain)), IoPools(), Kept(), str(tmp_path / "no folder"))
    await lease.take(domain, 1, timeout_s=5)
    assert await domain.leases.held(domain.sdm_lease) is True
