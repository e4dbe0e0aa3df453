# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of JSON that keep it JSON: a change of bytes rarely gets past the decoder to what lies behind it."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ID = "6a3b1f0e-0000-4000-8000-000000000001"
DEPTHS = (1, 1, 1, 2, 2, 3, 5, 60, 400)
NASTY: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1 << 63,
    10**30,
    -0.0,
    1e308,
    "",
    "1",
    "yes",
    "-1",
    "9" * 25,
    "\0",
    "\n\r\u2028\u202e\uffff",
    "../../etc/passwd",
    ID,
    ID.upper(),
    f"{ID}\n",
    "{0.__class__}",
    "%s%n",
    " - at `$password`",
    "<a/>",
    "x" * 300,
    [],
    {},
    [[]],
    {"": {"": None}},
    {"self": 1, "context": 2, "params": 3},
)


def nasty(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(NASTY))


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 2000:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                waiting.append(container[key])
    return found


def change(value: Any, rng: random.Random) -> None:
    """Change one place of an object or array, in place."""
    found = places(value)
    if not found:
        return
    container, key = rng.choice(found)
    match rng.randrange(6):
        case 0 | 1:
            container[key] = nasty(rng)
        case 2:
            del container[key]
        case 3:  # what is right elsewhere
            other, name = rng.choice(found)
            container[key] = copy.deepcopy(other[name])
        case 4:
            for _ in range(rng.choice(DEPTHS)):
                container[key] = [container[key]] if rng.random() < 0.5 else {"a": container[key]}
        case 5 if isinstance(container, dict):
            container[rng.choice((*map(str, container), "a.b", "x\n", "password", ID))] = container[key]
        case 5:
            container.extend(copy.deepcopy(container[key]) for _ in range(rng.choice((1, 3, 120))))


def changed(data: bytes, rng: random.Random) -> bytes | None:
    """The JSON with one to four changes; None when it is none, or can't be written."""
    try:
        value = json.loads(data)
        if not isinstance(value, dict | list):
            return None
        for _ in range(rng.randint(1, 4)):
            change(value, rng)
        return written(value, rng)
    except (ValueError, RecursionError):
        return None


def written(value: Any, rng: random.Random) -> bytes:
    separators = (",", ":") if rng.random() < 0.8 else None
    return json.dumps(value, ensure_ascii=rng.random() < 0.5, separators=separators).encode("utf-8", "replace")
