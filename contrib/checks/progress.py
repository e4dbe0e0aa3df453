# SPDX-License-Identifier: GPL-2.0-or-later
"""pytest plugin of the test command: tells results as they come, and writes them down for who started pytest.

A line for each file once all its tests have ended, a failure at once with its last lines. Each event is also a JSON
line in the file that VDSM_TEST_RESULTS names, so no result is lost with the process that had it:

    {"collected": [ids]}   {"started": id}   {"ended": id, "outcome": "passed", "seconds": 1.2}

``passed``, ``failed``, ``skipped``, ``error`` are pytest's words; an error is a failure outside of the test itself.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

RESULTS = "VDSM_TEST_RESULTS"
FAILURE_LINES = 12


class Progress:
    def __init__(self, config: pytest.Config, path: str) -> None:
        self._plugins = config.pluginmanager
        self._path = path
        self._waiting: defaultdict[str, set[str]] = defaultdict(set)
        self._outcome: dict[str, str] = {}
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._of_file: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._file_seconds: defaultdict[str, float] = defaultdict(float)

    # -- what pytest tells

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected([item.nodeid for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(started=_plain(nodeid))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = _plain(report.nodeid)
        self._seconds[test] += report.duration
        outcome = self._outcome.setdefault(test, "passed")
        if report.failed:
            outcome = "error" if report.when in ("setup", "teardown") else "failed"
            self._tell_failure(report)
        elif report.skipped:
            outcome = "xfailed" if hasattr(report, "wasxfail") else "skipped"
        if self._outcome[test] not in ("failed", "error"):
            self._outcome[test] = outcome
        # the runner of a test that crashed it reports no teardown
        if report.when not in ("setup", "call"):
            self._ended(test)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No letter for what passed: the lines say it."""
        if report.passed:
            return ("passed" if report.when == "call" else "", "", "")
        return None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(ended=report.nodeid, outcome="error", seconds=0)
            self._line(f"ERROR {report.nodeid} can't be collected")

    # -- of pytest-xdist

    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._collected([_plain(test) for test in ids])

    # -- the same in words

    def _collected(self, tests: list[str]) -> None:
        new = [test for test in tests if test not in self._waiting[_file(test)] and test not in self._outcome]
        for test in new:
            self._waiting[_file(test)].add(test)
        if new:
            self._write(collected=new)

    def _ended(self, test: str) -> None:
        file = _file(test)
        self._write(ended=test, outcome=self._outcome[test], seconds=round(self._seconds[test], 2))
        self._of_file[file][self._outcome[test]] += 1
        self._file_seconds[file] += self._seconds[test]
        self._waiting[file].discard(test)
        if not self._waiting[file]:
            counts = self._of_file.pop(file)
            seconds = self._file_seconds.pop(file)
            told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
            self._line(f"{file:48} {told:24} {seconds:6.1f} s")

    def _tell_failure(self, report: pytest.TestReport) -> None:
        where = f" ({report.when})" if report.when in ("setup", "teardown") else ""
        last = report.longreprtext.rstrip().splitlines()[-FAILURE_LINES:]
        kept = [f"host logs: {text}" for name, text in report.sections if name == "host logs"]
        self._line("\n    ".join([f"FAILED {report.nodeid}{where} after {report.duration:.1f} s", *last, *kept]))

    def _line(self, text: str) -> None:
        # made after this plugin
        terminal: Any = self._plugins.get_plugin("terminalreporter")
        terminal.ensure_newline()
        terminal.write_line(text)
        terminal.flush()

    def _write(self, **event: object) -> None:
        with open(self._path, "a") as file:
            file.write(json.dumps(event) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist's own processes have no terminal: their results come to the one that started them
    if RESULTS in os.environ and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config, os.environ[RESULTS]), "vdsm-progress")


def _plain(nodeid: str) -> str:
    """Without the group that pytest-xdist appends to a test's name."""
    head, at, group = nodeid.rpartition("@")
    return head if at and "/" not in group and "]" not in group else nodeid


def _file(nodeid: str) -> str:
    return nodeid.split("::")[0]
