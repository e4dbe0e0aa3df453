# SPDX-License-Identifier: GPL-2.0-or-later
from vdsm.common import memory

pytest_plugins = ["tests.failure_logs", "tests.ids"]


def pytest_collection_finish() -> None:
    """No full collection of garbage walks all tests again: 0.15 s for each that a test asks for."""
    memory.settle()
