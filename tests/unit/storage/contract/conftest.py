# SPDX-License-Identifier: GPL-2.0-or-later
"""The contracts of `storage.domain`, tested on each implementation: another kind of domain joins by its ground."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from deaths import Death
from grounds import FileGround, Ground, MemoryGround

from storage.domain import Domain, VolumeStore
from vdsm.common.crashpoints import CrashPoint
from vdsm.common.ids import new_uuid


@pytest.fixture(params=["file", "memory"])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    (tmp_path / "mount").mkdir()
    made: Ground = FileGround(tmp_path / "mount") if request.param == "file" else MemoryGround()
    yield made
    await made.end()


@pytest.fixture
async def domain(ground: Ground) -> Domain:
    return await ground.open()


@pytest.fixture
def volumes(domain: Domain) -> VolumeStore:
    return domain.volumes


@pytest.fixture
def image() -> str:
    return new_uuid()


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch) -> Death:
    made = Death()
    monkeypatch.setattr(CrashPoint, "reach", lambda point: made.reach(point))
    return made
