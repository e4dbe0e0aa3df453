# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests that share a host are a group, which one process runs. The longest group begins first.

pytest-xdist hands a group to each process that has nearly done what it has: a long one that comes last leaves the other
process idle. What a test costs is told by its ``cost`` mark, in seconds on two quiet cores; one without it costs
`USUAL_S`. (``--no-loadscope-reorder``: pytest-xdist would put the groups with most tests first.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest

USUAL_S = 1.0


def deal(items: list[pytest.Item], folder: str, group_of: Callable[[pytest.Item], str]) -> None:
    """Mark each test below that folder with its group, and order them; all other tests stay where they are."""
    places = [place for place, item in enumerate(items) if folder in item.nodeid]
    costs: defaultdict[str, float] = defaultdict(float)
    groups: dict[pytest.Item, str] = {}
    for place in places:
        item = items[place]
        groups[item] = group_of(item)
        item.add_marker(pytest.mark.xdist_group(groups[item]))
        mark = item.get_closest_marker("cost")
        costs[groups[item]] += mark.args[0] if mark else USUAL_S
    ordered = sorted((items[place] for place in places), key=lambda item: (-costs[groups[item]], groups[item]))
    for place, item in zip(places, ordered, strict=True):
        items[place] = item
