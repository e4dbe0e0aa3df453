# SPDX-License-Identifier: GPL-2.0-or-later
"""What a target is: a function that takes any bytes and raises when the agent did wrong with them.

It is plain Python and knows nothing of the fuzzer: a campaign calls it a million times, a unit test once for each
kept input. A target keeps no state from one input to the next, so that every finding can be repeated.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

TARGETS = ("stomp", "detection", "messages", "parameters")
KEPT = Path(__file__).resolve().parents[2] / "tests" / "fuzz_corpus"


@dataclass(frozen=True)
class Target:
    """``run`` raises for a finding. ``mutate`` knows the form of an input; without it only bytes are changed."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    max_bytes: int
    tokens: tuple[bytes, ...] = ()
    mutate: Callable[[bytes, random.Random], bytes] | None = None


def load(name: str) -> Target:
    """Imported here and not above: a campaign instruments what a target imports."""
    target = importlib.import_module(f"contrib.fuzz.{name}").TARGET
    assert isinstance(target, Target)
    return target
