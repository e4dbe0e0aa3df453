# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes of modules and classes may not grow past what is on record.

A module has at most 400 lines and a class 250. The ones that are larger stand in ratchet.json with their size, which
may only shrink. ``python -m contrib.checks.ratchet --record`` writes smaller sizes down; a larger one is entered by
hand, with a reason in the commit.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_name("ratchet.json")
FOLDERS = ("vdsm", "storage", "network", "hooks", "contrib")
MODULE_LINES, CLASS_LINES = 400, 250


def sizes(top: Path) -> Iterator[tuple[str, int, int]]:
    """(name, lines, limit) of every module and class below the source folders."""
    for folder in FOLDERS:
        for path in sorted((top / folder).rglob("*.py")):
            text = path.read_text()
            name = str(path.relative_to(top))
            yield name, len(text.splitlines()), MODULE_LINES
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ClassDef) and node.end_lineno is not None:
                    yield f"{name}:{node.name}", node.end_lineno - node.lineno + 1, CLASS_LINES


def complaints(measured: Iterator[tuple[str, int, int]], recorded: dict[str, int]) -> list[str]:
    found = []
    for name, lines, limit in measured:
        allowed = recorded.get(name, limit)
        if lines > allowed:
            found.append(f"{name}: {lines} lines, at most {allowed} allowed: which second idea could move out?")
    return found


def shrunk(measured: Iterator[tuple[str, int, int]], recorded: dict[str, int]) -> dict[str, int]:
    """The record with every size that went down, without those back under the general limit."""
    now = {name: (lines, limit) for name, lines, limit in measured}
    kept = {}
    for name, allowed in recorded.items():
        if name in now and now[name][0] > now[name][1]:
            kept[name] = min(allowed, now[name][0])
    return kept


def main() -> int:
    recorded: dict[str, int] = json.loads(RECORD.read_text())
    if sys.argv[1:] == ["--record"]:
        RECORD.write_text(json.dumps(shrunk(sizes(TOP), recorded), indent=2, sort_keys=True) + "\n")
        return 0
    found = complaints(sizes(TOP), recorded)
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
