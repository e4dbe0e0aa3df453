# SPDX-License-Identifier: GPL-2.0-or-later
"""No two modules of tests have one name: pytest collects neither when both are asked for.

Folders that are no packages put their modules beside each other.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2] / "tests"


def namesakes(top: Path) -> list[list[Path]]:
    """Modules of the same name in folders that are no packages, those of a name together."""
    found = defaultdict(list)
    for path in sorted(top.rglob("*.py")):
        if path.name not in ("__init__.py", "conftest.py") and not (path.parent / "__init__.py").exists():
            found[path.name].append(path)
    return [paths for paths in found.values() if len(paths) > 1]


def main() -> int:
    found = namesakes(TESTS)
    for paths in found:
        print("modules of one name:", *(str(path.relative_to(TESTS)) for path in paths))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
