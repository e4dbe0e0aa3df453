# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are mounted: first out of sight, then on a folder of ``mnt``, by its descriptor.

    slot (a folder that root alone can enter) -> mount(8) -> may agent and QEMU use it? -> the same mount appears on
    the folder below ``mnt`` -> the one in the slot is taken away

So a mount that is refused was never to be seen, and the helper programs of mount(8), which know nothing but paths,
see one on which only root has a say. What a killed helper left in slots is taken away at the next start; what a
mount(8) that hangs in the kernel brings about later, when that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from vdsm.common import commands
from vdsm.common.errors import AgentError
from vdsm.common.mountinfo import mount_points
from vdsm.root.server import attach, walk
from vdsm.root.server.registry import Helper

log = logging.getLogger("vdsm.root.mounts")

STEP_S = 60.0
CUT_OFF_S = 10.0
PLACE = "m"

_later: set[asyncio.Task[None]] = set()


@dataclass(frozen=True)
class Slot:
    """``fd``: the folder in which `PLACE` is mounted on."""

    path: str
    fd: int

    @property
    def place(self) -> str:
        return os.path.join(self.path, PLACE)

    def write(self, name: str, text: str) -> str:
        """A file that only root reads, as long as the slot is there; its path."""
        file = os.path.join(self.path, name)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as f:
            f.write(text)
        return file


@contextlib.contextmanager
def folder(helper: Helper) -> Iterator[int]:
    """``mnt``, by a descriptor; made anew when somebody has removed it. Raises `UnsafeFolder`."""
    with walk.made(helper.paths.mounts) as fd:
        yield fd


@contextlib.asynccontextmanager
async def slot(helper: Helper) -> AsyncIterator[Slot]:
    staging = helper.paths.root_staging
    walk.make_own(staging, 0o700)
    path = tempfile.mkdtemp(dir=staging)
    os.chmod(path, 0o755)
    os.mkdir(os.path.join(path, PLACE), 0o755)
    made = Slot(path, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    try:
        yield made
    finally:
        await asyncio.shield(_clear(made))


async def run(
    argv: Sequence[str], timeout_s: float, place: str, *, pass_fds: Sequence[int] = (), into: Slot | None = None
) -> commands.Completed:
    """A command that may hang in the kernel.

    ``into``: the slot that it mounts on, which is looked at again when a command that hung has ended.
    """

    def clear() -> None:
        if into is not None:
            _keep(asyncio.ensure_future(_clear_path(into.path)))

    return await commands.run(argv, timeout_s=timeout_s, pass_fds=pass_fds, place=place, ended_late=clear)


async def attach_to(slot: Slot, target: int, place: str) -> None:
    argv = [*_program(), "attach", str(slot.fd), PLACE, str(target)]
    await run(argv, STEP_S, place, pass_fds=[slot.fd, target], into=slot)


async def detach(folder: int, name: str, mode: str, place: str) -> None:
    """``mode``: see `attach.MODES`. Raises `CommandFailed` while it is in use, `DeadlineExceeded`.

    What hangs while it mounts, or unmounts in order, does not keep a forced end out.
    """
    timeout_s = STEP_S if mode == "plain" else CUT_OFF_S
    await run(
        [*_program(), "detach", str(folder), name, mode], timeout_s, f"{place} ({mode} unmount)", pass_fds=[folder]
    )


async def sweep(helper: Helper) -> None:
    """At the helper's start: what a killed one left in slots."""
    with contextlib.suppress(FileNotFoundError), walk.trusted(helper.paths.root_staging):
        for name in os.listdir(helper.paths.root_staging):
            await _clear_path(os.path.join(helper.paths.root_staging, name))


async def _clear(slot: Slot) -> None:
    os.close(slot.fd)
    await _clear_path(slot.path)


async def _clear_path(path: str) -> None:
    """What can't be taken away is told; the next start sees it again."""
    place = os.path.join(path, PLACE)
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if place in mount_points():
                await detach(fd, PLACE, "lazy", place)
        finally:
            os.close(fd)
        for name in os.listdir(path):
            if name != PLACE:
                os.unlink(os.path.join(path, name))
        os.rmdir(place)
        os.rmdir(path)
    except FileNotFoundError:
        return
    except (OSError, AgentError) as e:
        log.error("%s can't be taken away: %s", path, e)


def _keep(task: asyncio.Task[None]) -> None:
    _later.add(task)
    task.add_done_callback(_later.discard)


def _program() -> list[str]:
    return [sys.executable, "-I", "-S", attach.__file__]
