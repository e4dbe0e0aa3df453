# SPDX-License-Identifier: GPL-2.0-or-later
"""That tests whose ids differ from one collection to the next don't run, and are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contrib.checks.tests import TOP

ADDRESS = """
import pytest

class Thing: ...

@pytest.mark.parametrize("thing", [Thing()], ids=repr)
def test_it(thing): ...
"""
ORDER_OF_A_SET = """
import pytest

@pytest.mark.parametrize("word", {str(n) for n in range(100)})
def test_it(word): ...
"""


@pytest.mark.parametrize(
    ("text", "options", "named"),
    [
        (ADDRESS, (), ".Thing object at 0x"),
        (ORDER_OF_A_SET, ("-n", "2"), "+test_made.py::test_it["),
    ],
    ids=["address", "order"],
)
def test_ids_that_differ_keep_tests_from_running(
    tmp_path: Path, text: str, options: tuple[str, ...], named: str
) -> None:
    (tmp_path / "test_made.py").write_text(text)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.ids", *options, "."]
    environment = {**os.environ, "PYTHONPATH": str(TOP), "PYTHONHASHSEED": "random"}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "passed" not in done.stdout
    assert named in done.stdout + done.stderr
