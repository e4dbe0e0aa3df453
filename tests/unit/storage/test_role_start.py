# SPDX-License-Identifier: GPL-2.0-or-later
"""A start waits for the lease of a master that another host's SPM has meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from memory_spm import MemoryLease, MemoryPool, MemorySpm

from storage.domain import Domain
from storage.spm.errors import WrongMaster


async def test_a_master_whose_role_moves_while_its_lease_is_waited_for_has_no_spm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = MemoryPool(tmp_path)
    take = MemoryLease.take

    async def moved_meanwhile(lease: MemoryLease, domain: Domain, host_id: int, *, timeout_s: float) -> int:
        pool.storage.metadata = pool.storage.metadata.with_fields({"ROLE": "Regular"})
        return await take(lease, domain, host_id, timeout_s=timeout_s)

    monkeypatch.setattr(MemoryLease, "take", moved_meanwhile)
    spm = MemorySpm(pool)
    with pytest.raises(WrongMaster):
        await spm.start()
    await spm.stop()
