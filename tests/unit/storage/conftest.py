# SPDX-License-Identifier: GPL-2.0-or-later
"""A storage pool on a local folder: real files, real I/O helpers, a real SPM process, no privileges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from inside import Spm
from local_world import World

from storage.file.iopool import IoPools


@pytest.fixture
async def pools() -> AsyncIterator[IoPools]:
    made = IoPools()
    yield made
    await made.close()


@pytest.fixture(scope="session")
def make_pool(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """Makes a pool that no test changes; ``changes`` are those of its domain."""

    def make_pool(**changes: Any) -> World:
        made = World(tmp_path_factory.mktemp("made"))

        async def make() -> None:
            made.folder.mkdir()
            await made.start()
            await made.create_pool(**changes)
            await made.stop()

        with ThreadPoolExecutor(1) as thread:  # beside the loop of the test that first asks for it
            thread.submit(asyncio.run, make()).result()
        return made

    return make_pool


@pytest.fixture(scope="session")
def _made(make_pool: Callable[..., World]) -> World:
    return make_pool()


@pytest.fixture
async def world(tmp_path: Path, _made: World) -> AsyncIterator[World]:
    """A connected pool; nobody is SPM."""
    world = World(tmp_path, pool_id=_made.pool_id, domain_id=_made.domain_id)
    world.take(_made)
    await world.start()
    await world.connect()
    yield world
    await world.stop()


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
