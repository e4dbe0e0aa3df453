# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of launch flags is a hook's to replace: whatever lies there, the agent goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vdsm.virt.launch_flags import BadLaunchFlags, LaunchFlags

from .fakes import VM


@pytest.mark.parametrize("leave", [os.mkfifo, os.mkdir, lambda path: os.symlink("launchflags", path)])
async def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, leave: Callable[[Path], None]) -> None:
    flags = LaunchFlags(str(tmp_path), VM)
    flags.write(1)
    path = tmp_path / VM / "launchflags"
    path.unlink()
    leave(path)
    reading = asyncio.create_task(asyncio.to_thread(flags.read))
    done, _ = await asyncio.wait([reading], timeout=2)
    if not done:  # let the thread go
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    assert done
    with pytest.raises(BadLaunchFlags, match="launchflags"):
        reading.result()


def test_flags_that_a_hook_changed_or_removed_are_read(tmp_path: Path) -> None:
    flags = LaunchFlags(str(tmp_path), VM)
    flags.write(1)
    (tmp_path / VM / "launchflags").write_text("5\n")
    assert flags.read() == 5
    flags.remove()
    assert flags.read() == 0
