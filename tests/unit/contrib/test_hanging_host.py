# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that hangs costs the tests that use it, not the other tests' results, and not their time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
CONFTEST = """
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import failure_logs
from tests.failure_logs import *  # its hooks

failure_logs.LOGS = Path(__file__).parent / "logs"
failure_logs.HOST_S, failure_logs.ALL_S, failure_logs.ANSWER_S = 2.0, 3.0, 0.2


class Host:
    pid = 1

    def __init__(self, name, hangs):
        self.spec = SimpleNamespace(name=name)
        self.hangs = hangs

    def collect_logs(self, folder):
        folder.mkdir(parents=True)
        if self.hangs:
            threading.Event().wait()
        (folder / "log").touch()

    def run(self, argv, *, timeout_s):
        if self.hangs:
            threading.Event().wait()


@pytest.fixture(scope="module")
def hanging():
    with failure_logs.watched(Host("hanging", True)):
        yield


@pytest.fixture(scope="module")
def living():
    with failure_logs.watched(Host("living", False)):
        yield
"""
MEETS_IT = """
import pytest

@pytest.mark.timeout(1)
def test_first(living, hanging):
    raise AssertionError("its own failure")

def test_second(living, hanging):
    pass

def test_third(living, hanging):
    pass
"""
OTHERS = """
def test_other():
    pass
"""


@dataclass(frozen=True)
class Run:
    folder: Path
    told: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("hanging")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_a.py").write_text(MEETS_IT)
    (folder / "test_b.py").write_text(OTHERS)
    argv = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", f"--rootdir={folder}", str(folder)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    told = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=90).stdout
    return Run(folder, told)


def test_a_hanging_host_costs_its_own_tests_only(run: Run) -> None:
    assert "its own failure" in run.told
    assert "1 failed, 1 passed, 2 errors" in run.told, run.told
    assert "PASSED test_b.py::test_other" in run.told
    assert "INTERNALERROR" not in run.told


def test_what_follows_says_which_host_hangs_since_when(run: Run) -> None:
    assert run.told.count("host hanging does not answer since test_a.py::test_first") >= 2


def test_logs_of_the_hosts_that_live_are_kept(run: Run) -> None:
    assert (run.folder / "logs/test_a.py_test_first/living/log").exists()
