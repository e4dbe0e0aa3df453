# SPDX-License-Identifier: GPL-2.0-or-later
"""That tests which share a host stay in one process, and the longest begin first, by this pytest and pytest-xdist."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from contrib.checks.tests import GROUPS, TOP

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


COSTS = """
import pytest
from tests import groups

def pytest_configure(config):
    config.addinivalue_line("markers", "cost(seconds)")

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    groups.deal(items, "test_it.py", lambda item: item.name[5:6])
"""
LONG_AND_SHORT = """
import pytest

@pytest.mark.parametrize("number", range(10))
def test_many(number):
    print("RAN many")

@pytest.mark.cost(20)
def test_long():
    print("RAN long")

@pytest.mark.parametrize("number", range(12))
@pytest.mark.cost(0.1)
def test_quick(number):
    print("RAN quick")
"""


def test_the_group_that_takes_longest_begins_first(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(COSTS)
    (tmp_path / "test_it.py").write_text(LONG_AND_SHORT)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rP", "-n", "1", *GROUPS, "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
    )
    ran = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("RAN ")]
    assert ran == ["long", *["many"] * 10, *["quick"] * 12], done.stdout + done.stderr
