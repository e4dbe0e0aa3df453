# SPDX-License-Identifier: GPL-2.0-or-later
"""Types that every floor shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
