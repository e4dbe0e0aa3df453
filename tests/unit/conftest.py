# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of all unit tests."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.soak import SOAK

# An example's time says nothing on a machine that runs other things too.
settings.register_profile("unit", deadline=None, max_examples=500 if SOAK else 50)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _log_levels_end_with_their_test() -> Iterator[None]:
    """Verbs change the levels of the process, which is that of all tests, and the generic tests call every verb."""
    before = {logger: logger.level for logger in _loggers()}
    disabled = logging.root.manager.disable
    yield
    for logger in _loggers():
        level = before.get(logger, logging.NOTSET)
        if logger.level != level:
            logger.setLevel(level)
    logging.disable(disabled)


def _loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]
