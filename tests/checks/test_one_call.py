# SPDX-License-Identifier: GPL-2.0-or-later
"""That tests of several folders can be run by one pytest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_no_two_test_files_have_one_name() -> None:
    """Outside of packages a file's name is its module's: pytest collects only the first of equal ones."""
    files = [path for path in TESTS.rglob("test_*.py") if not (path.parent / "__init__.py").exists()]
    assert [name for name, count in Counter(path.name for path in files).items() if count > 1] == []
