# SPDX-License-Identifier: GPL-2.0-or-later
"""A storage pool on a local folder: real files, real I/O helpers, a real SPM process, no privileges."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from inside import Spm
from local_world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A connected pool; nobody is SPM."""
    made = World(tmp_path)
    made.folder.mkdir()
    await made.start()
    await made.create_pool()
    await made.connect()
    yield made
    await made.stop()


@pytest.fixture
async def spm(world: World) -> World:
    """A connected pool whose SPM is this host."""
    status = await world.become_spm()
    assert status["taskResult"] == "success", status
    return world


@pytest.fixture
async def inside(world: World) -> AsyncIterator[Spm]:
    """An SPM of the pool inside this process: its role is taken."""
    spm = Spm(world)
    await spm.start()
    yield spm
    await spm.stop()
