# SPDX-License-Identifier: GPL-2.0-or-later
"""That tests which share a host stay in one process: releases of pytest and pytest-xdist have disagreed on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.name[5:6]))
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(10))
def test_a(number, worker_id):
    print("IN a", worker_id)

@pytest.mark.parametrize("number", range(10))
def test_b(number, worker_id):
    print("IN b", worker_id)
"""


def test_a_group_of_tests_runs_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rP", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("IN ")]
    assert len(lines) == 20, done.stdout + done.stderr
    assert len({worker for group, worker in lines if group == "a"}) == 1
    assert len({worker for group, worker in lines if group == "b"}) == 1
