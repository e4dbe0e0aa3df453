# SPDX-License-Identifier: GPL-2.0-or-later
"""Ids of tests are the same in each collection: runners would not agree on what to run, and nobody could run one again.

Several processes collect all unit tests, and pytest-xdist refuses to run any when their ids differ (an order of a set,
a time, a random number). An object's address is seen by one process, too: also where a few tests are run by hand.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

_ADDRESS = " at 0x"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if odd := with_an_address(item.nodeid for item in items):
        raise pytest.UsageError("\n".join(["an object's address is no id of a test, give it ids=:", *odd]))


def with_an_address(ids: Iterable[str]) -> list[str]:
    return [test for test in ids if _ADDRESS in test]
