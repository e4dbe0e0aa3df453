# SPDX-License-Identifier: GPL-2.0-or-later
"""The source itself: style, types, floors and sizes, as `make check` looks at them."""

from __future__ import annotations

import subprocess

import pytest

from contrib.checks.__main__ import CHECKS, TOP


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CHECKS)
def test_source_passes(name: str) -> None:
    done = subprocess.run(CHECKS[name], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
