# SPDX-License-Identifier: GPL-2.0-or-later
"""From a campaign's corpus the few inputs that are worth a unit test: together they go every way that it found.

A way is a step from one line to another in the agent's code, and about how often it is taken. Each input is run under a
line tracer; inputs that fail are left out, for what they show must be mended first. Files with a name that a person
gave (the input of a finding that is mended now) stay for good.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from contrib.fuzz.target import Target

TOP = Path(__file__).resolve().parents[2]
TRACED = tuple(str(TOP / folder) for folder in ("vdsm", "storage", "network"))
MAX_FILES = 150
MAX_BYTES = 70_000
# more often than 2 to the power of it makes no difference
MOST = 8
_OWN_NAME = re.compile("[0-9a-f]{16}")

Step = tuple[CodeType, int, int]
Ways = frozenset[tuple[Step, int]]


def keep(target: Target, inputs: Iterable[bytes], folder: Path) -> int:
    """Write the chosen ones into ``folder``, in place of those chosen before; how many they are."""
    chosen = cover({data: ways for data in inputs if (ways := _ways(target, data)) is not None})
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if _OWN_NAME.fullmatch(old.name):
            old.unlink()
    for data in chosen:
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]).write_bytes(data)
    return len(chosen)


def cover(ways: dict[bytes, Ways]) -> list[bytes]:
    """Small ones first: each adds something, and none is needless after those that came later."""
    chosen: list[bytes] = []
    seen: Counter[tuple[Step, int]] = Counter()
    for data in sorted(ways, key=lambda data: (len(data), data)):
        if not all(way in seen for way in ways[data]):
            chosen.append(data)
            seen.update(ways[data])
    for data in list(chosen):
        if all(seen[way] > 1 for way in ways[data]):
            chosen.remove(data)
            seen.subtract(ways[data])
    while len(chosen) > MAX_FILES or sum(map(len, chosen)) > MAX_BYTES:
        chosen.remove(max(chosen, key=len))
    return chosen


def _ways(target: Target, data: bytes) -> Ways | None:
    """The ways of a run; None when it fails."""
    found: Counter[Step] = Counter()
    last: dict[FrameType, int] = {}

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            found[frame.f_code, last.get(frame, 0), frame.f_lineno] += 1
            last[frame] = frame.f_lineno
        elif event == "return":
            last.pop(frame, None)
        return on_line

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        return on_line if frame.f_code.co_filename.startswith(TRACED) else None

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        target.run(data)
    except Exception:  # noqa: BLE001 - a finding is not for the kept corpus
        return None
    finally:
        sys.settrace(before)
    return frozenset((step, min(count.bit_length(), MOST)) for step, count in found.items())
