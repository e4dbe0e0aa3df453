# SPDX-License-Identifier: GPL-2.0-or-later
"""Real scripts in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vdsm.common.events import Events
from vdsm.common.paths import Paths
from vdsm.hooking.service import Hooks

VM_ID = "5a3b1c5e-7b0c-4b56-9d36-0f2f4b7f0a01"
DOMAIN = f"<domain type='qemu'>\n<name>web</name>\n<uuid>{VM_ID}</uuid>\n<memory>1024</memory>\n</domain>"

Install = Callable[..., Path]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    tmp_path.chmod(0o755)
    for name in ("hooks", "state"):
        (tmp_path / name).mkdir(mode=0o755)
    return Paths(hooks=str(tmp_path / "hooks"), state=str(tmp_path / "state"), run=str(tmp_path / "run"))


@pytest.fixture
def install(paths: Paths) -> Install:
    """install(point, name, body, mode=0o755, head="#!/bin/sh"): a script, written and made executable."""

    def _install(point: str, name: str, body: str, *, mode: int = 0o755, head: str = "#!/bin/sh\n") -> Path:
        folder = Path(paths.hooks, point)
        folder.mkdir(mode=0o755, exist_ok=True)
        path = folder / name
        path.write_text(head + body)
        path.chmod(mode)
        return path

    return _install


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def hooks(paths: Paths, events: Events) -> Hooks:
    return Hooks(paths=paths, events=events, default_timeout_s=30.0)
