# SPDX-License-Identifier: GPL-2.0-or-later
"""The test command counts every test, whatever becomes of the processes that run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contrib.checks import leftovers, tests
from contrib.checks.tests import Phase, Results, Written, run_phase

RUNNER_DIES = """
import os

def test_before():
    pass

def test_kills_its_runner():
    os._exit(7)

def test_after():
    pass
"""
PYTEST_DIES = """
import os, signal
import pytest

def test_before():
    pass

def test_kills_pytest():
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.skip
def test_skipped():
    pass

def test_fails():
    raise AssertionError("what it says")

@pytest.fixture
def broken():
    raise OSError("no fixture")

def test_has_no_fixture(broken):
    pass
"""
HANGS = """
import threading

def test_before():
    pass

def test_never_ends():
    threading.Event().wait()

def test_after():
    pass
"""


def _run(folder: Path, text: str, *options: str) -> Results:
    made = folder / "made"
    made.mkdir()
    (made / "test_made.py").write_text(text)
    phase = Phase((*options, "-p", "no:cacheprovider"), ("test_made.py",), made)
    return run_phase(phase, folder / "results", {**os.environ, "PYTHONPATH": str(tests.TOP)})


def _outcomes(results: Results) -> dict[str, str]:
    return {test.split("::")[-1]: outcome for test, outcome in results.outcomes.items()}


def test_a_dead_runner_costs_the_test_that_it_ran(tmp_path: Path) -> None:
    found = _outcomes(_run(tmp_path, RUNNER_DIES, "-n", "1"))
    assert found == {"test_before": "passed", "test_kills_its_runner": "failed", "test_after": "passed"}


def test_a_dead_pytest_costs_the_test_that_it_ran(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = _outcomes(_run(tmp_path, PYTEST_DIES))
    assert found == {
        "test_before": "passed",
        "test_kills_pytest": "failed",
        "test_skipped": "skipped",
        "test_fails": "failed",
        "test_has_no_fixture": "error",
    }
    told = capfd.readouterr().out
    assert "4 passed" not in told
    assert "what it says" in told


def test_a_pytest_in_which_nothing_ends_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tests, "SILENT_S", 5.0)
    found = _outcomes(_run(tmp_path, HANGS))
    assert found == {"test_before": "passed", "test_never_ends": "failed", "test_after": "passed"}


def test_a_line_counts_once_it_is_whole(tmp_path: Path) -> None:
    """A long line, as that of all tests' names, is written in several pieces."""
    file = tmp_path / "results"
    with open(file, "w") as writer, open(file) as reader:
        written = Written(reader)
        told = []
        for piece in ('{"coll', 'ected": ["a', '"]}\n{"started": "a"}\n{', '"ended": 1', "}\n"):
            writer.write(piece)
            writer.flush()
            told.append(written.lines())
    assert told == [[], [], ['{"collected": ["a"]}', '{"started": "a"}'], [], ['{"ended": 1}']]


def test_no_test_at_all_is_an_error(tmp_path: Path) -> None:
    assert list(_run(tmp_path, "").outcomes.values()) == ["error"]


def test_a_process_that_a_run_left_is_named(tmp_path: Path) -> None:
    run = f"run-{tmp_path.name}-{os.getpid()}"
    before = leftovers.seen(run)
    argv = [sys.executable, "-c", "print('runs', flush=True); input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, env={**os.environ, leftovers.MARK: run}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"  # the kernel shows no environment yet when the child begins
        assert [line for line in leftovers.left(before, run, settle_s=0) if f"process {process.pid}: " in line]
        process.kill()
    assert not [line for line in leftovers.left(before, run) if line.startswith("process")]


COMMAND = """
import sys
import time
from collections.abc import Callable
from pathlib import Path
from contrib.checks import tests
tests.PHASES = {"made": tests.Phase(("-p", "no:cacheprovider"), ("test_made.py",), Path.cwd())}
sys.exit(tests.main([]))
"""
TELLS_ITS_PROCESS = """
import os, threading

def test_never_ends():
    with open("pid", "w") as file:
        file.write(str(os.getpid()))
    os.rename("pid", "process")
    threading.Event().wait()
"""


def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_pytest_ends_with_the_command(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "test_made.py").write_text(TELLS_ITS_PROCESS)
    environment = {**os.environ, "PYTHONPATH": str(tests.TOP)}
    with subprocess.Popen([sys.executable, "-c", COMMAND], cwd=tmp_path, env=environment) as command:
        _until((tmp_path / "process").exists)
        command.send_signal(number)
    pid = (tmp_path / "process").read_text()
    _until(lambda: not Path("/proc", pid).exists())
