# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules of tests that would keep each other from being collected."""

from contrib.checks.namesakes import namesakes


def test_modules_of_one_name_are_found_but_in_packages(tmp_path):
    for folder in ("one", "two", "package"):
        (tmp_path / folder).mkdir()
        for name in ("test_same.py", f"test_{folder}.py", "conftest.py"):
            (tmp_path / folder / name).touch()
    (tmp_path / "package" / "__init__.py").touch()
    (same,) = namesakes(tmp_path)
    assert [path.parent.name for path in same] == ["one", "two"]
