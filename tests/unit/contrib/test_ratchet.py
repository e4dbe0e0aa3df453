# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

from pathlib import Path

from contrib.checks.ratchet import complaints, shrunk, sizes


def test_new_module_over_the_limit_is_refused() -> None:
    assert complaints(iter([("vdsm/a.py", 401, 400)]), {}) == [
        "vdsm/a.py: 401 lines, at most 400 allowed: which second idea could move out?"
    ]


def test_recorded_size_may_stay_but_not_grow() -> None:
    recorded = {"vdsm/a.py": 500}
    assert complaints(iter([("vdsm/a.py", 500, 400)]), recorded) == []
    assert complaints(iter([("vdsm/a.py", 501, 400)]), recorded) != []


def test_record_shrinks_and_forgets() -> None:
    recorded = {"vdsm/a.py": 500, "vdsm/b.py": 500, "vdsm/gone.py": 500}
    measured = iter([("vdsm/a.py", 450, 400), ("vdsm/b.py", 399, 400)])
    assert shrunk(measured, recorded) == {"vdsm/a.py": 450}


def test_classes_are_measured(tmp_path: Path) -> None:
    (tmp_path / "vdsm").mkdir()
    (tmp_path / "vdsm" / "a.py").write_text("class A:\n    x = 1\n    y = 2\n\nz = 1\n")
    assert list(sizes(tmp_path)) == [("vdsm/a.py", 5, 400), ("vdsm/a.py:A", 3, 250)]
