# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .fakes import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.vms.start()
    yield world
    await world.vms.stop()
