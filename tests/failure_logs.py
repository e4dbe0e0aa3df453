# SPDX-License-Identifier: GPL-2.0-or-later
"""When a test fails, the logs of every host that runs then are copied to logs/<test>/<host>/.

A host that hangs must not take the tests with it: its logs are waited for `HOST_S` at most, all of a test's for
`ALL_S`, and the test's own time-out does not run meanwhile, since what it raises in the middle of a report would end
the process that has the results. Every later test that meets a host which does not answer fails at once.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

LOGS = Path(__file__).resolve().parents[1] / "logs"
HOST_S, ALL_S = 30.0, 60.0
# a living host answers in a tenth; an emulated one on a busy machine in a few seconds
ANSWER_S = 15.0


class Spec(Protocol):
    @property
    def name(self) -> str: ...


class Host(Protocol):
    @property
    def spec(self) -> Spec: ...

    @property
    def pid(self) -> int: ...

    def collect_logs(self, folder: Path) -> None: ...

    def run(self, argv: Sequence[str], *, timeout_s: float) -> object: ...


_watched: list[Host] = []
# hosts that were too slow with their logs: name of the host, the test that met it so
_hanging: dict[str, str] = {}


@contextlib.contextmanager
def watched(*hosts: Host) -> Iterator[None]:
    """For the length of the block these hosts' logs are kept when a test fails."""
    _watched.extend(hosts)
    try:
        yield
    finally:
        for host in hosts:
            _watched.remove(host)
            _hanging.pop(host.spec.name, None)


def skip_unless(items: list[pytest.Item], *, folder: str, reason: str, possible: bool) -> None:
    """Every test below that folder is skipped by name when it can't run here."""
    if not possible:
        for item in items:
            if folder in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for host in _watched:
        test = _hanging.get(host.spec.name)
        if test and host.pid and not _in_time(partial(host.run, ["true"], timeout_s=ANSWER_S), ANSWER_S):
            pytest.fail(f"host {host.spec.name} does not answer since {test}", pytrace=False)
        _hanging.pop(host.spec.name, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        with _time_out_stopped():
            limit = time.monotonic() + ALL_S
            for host in _watched:
                folder = LOGS / re.sub(r"[^\w.-]+", "_", item.nodeid) / host.spec.name
                report.sections.append(("host logs", _collect(host, folder, item.nodeid, limit)))
    return report


def _collect(host: Host, folder: Path, test: str, limit: float) -> str:
    """Copy a host's logs; where they are, or why not all of them."""
    if host.spec.name in _hanging:
        return f"none: {host.spec.name} does not answer"
    given = min(HOST_S, limit - time.monotonic())
    if given <= 0 or not _in_time(partial(host.collect_logs, folder), given):
        _hanging[host.spec.name] = test
        return f"{folder}: not complete, {host.spec.name} did not give them within {max(given, 0):.0f} s"
    return str(folder)


def _in_time(action: Callable[[], object], seconds: float) -> bool:
    """Whether it ended without trouble. A call into a hanging host can't be interrupted: its thread is left behind."""
    done: list[bool] = []

    def run() -> None:
        with contextlib.suppress(Exception):  # whatever a broken host answers, the test's own failure is the news
            action()
            done.append(True)

    thread = threading.Thread(target=run, daemon=True, name="host")
    thread.start()
    thread.join(seconds)
    return bool(done)


@contextlib.contextmanager
def _time_out_stopped() -> Iterator[None]:
    """pytest-timeout's timer goes on where it was when the block ends."""
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, left, interval)
