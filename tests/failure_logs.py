# SPDX-License-Identifier: GPL-2.0-or-later
"""When a test fails, the logs of every host that runs then are copied to logs/<test>/<host>/."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

LOGS = Path(__file__).resolve().parents[1] / "logs"


class Spec(Protocol):
    @property
    def name(self) -> str: ...


class Host(Protocol):
    @property
    def spec(self) -> Spec: ...

    def collect_logs(self, folder: Path) -> None: ...


_watched: list[Host] = []


@contextlib.contextmanager
def watched(*hosts: Host) -> Iterator[None]:
    """For the length of the block these hosts' logs are kept when a test fails."""
    _watched.extend(hosts)
    try:
        yield
    finally:
        for host in hosts:
            _watched.remove(host)


def skip_unless(items: list[pytest.Item], *, folder: str, reason: str, possible: bool) -> None:
    """Every test below that folder is skipped by name when it can't run here."""
    if not possible:
        for item in items:
            if folder in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.failed:
        folder = LOGS / re.sub(r"[^\w.-]+", "_", item.nodeid)
        for host in _watched:
            host.collect_logs(folder / host.spec.name)
            report.sections.append(("host logs", str(folder / host.spec.name)))
    return report
