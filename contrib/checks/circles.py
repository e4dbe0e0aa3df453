# SPDX-License-Identifier: GPL-2.0-or-later
"""No module imports, over whatever way, itself: two that need each other are one, or there is a third.

Floors keep rooms apart; inside a room this does. Imports for type checkers alone, and inside functions, count, too.
"""

from __future__ import annotations

import graphlib
import sys

import grimp

PACKAGES = ("vdsm", "storage", "network", "contrib")


def circle(imports: dict[str, set[str]]) -> list[str]:
    """One circle, its first module at both ends; empty where there is none."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as e:
        return list(reversed(e.args[1]))
    return []


def main() -> int:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)
    found = circle({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    if found:
        print(f"modules import each other: {' -> '.join(found)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
