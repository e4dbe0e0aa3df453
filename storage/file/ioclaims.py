# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes to one path happen in the order in which they were asked for, also when nobody waits for them any more.

A write claims the paths it changes, and waits for the end of each earlier one that claims the same path, or one above
or below it. Its own claim ends with its answer or, when it was given up, with its process: until then the kernel may
still carry it out, over whatever came later.

One exception: a replacement of a file (`iohelper.requests` says how) goes after one that was given up, since that one
can't land any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

GONE_S = 1.0
"""So long the end of a process that was killed is waited for. It takes milliseconds where nothing hangs."""


class EarlierWriteHangs(Exception):
    """Not told as such: see `storage.file.iopool`."""


class Claim:
    def __init__(self, paths: tuple[str, ...], *, replaces: bool) -> None:
        self.paths = paths
        self.replaces = replaces
        self.given_up: asyncio.Future[Any] | None = None
        """The end of its process, which was killed."""
        self.over = asyncio.Event()
        """It was answered or given up."""

    def concerns(self, other: Claim) -> bool:
        return any(_touch(mine, theirs) for mine in self.paths for theirs in other.paths)

    async def passed(self, later: Claim) -> None:
        """Wait until ``later`` may begin. Raises `EarlierWriteHangs`."""
        await self.over.wait()
        if self.given_up is None or (self.replaces and later.replaces and self.paths == later.paths):
            return
        await asyncio.wait([self.given_up], timeout=GONE_S)
        if not self.given_up.done():
            raise EarlierWriteHangs


class Claims:
    """Of one mount."""

    def __init__(self) -> None:
        self._claims: list[Claim] = []

    def __len__(self) -> int:
        return len(self._claims)

    @contextlib.asynccontextmanager
    async def hold(self, claim: Claim) -> AsyncIterator[None]:
        """Set ``claim.given_up`` before leaving when the write's process was killed in the midst of it."""
        before = [earlier for earlier in self._claims if earlier.concerns(claim)]
        self._claims.append(claim)
        try:
            for earlier in before:
                await earlier.passed(claim)
            yield
        finally:
            claim.over.set()
            if claim.given_up is None or claim.given_up.done():
                self._claims.remove(claim)
            else:
                claim.given_up.add_done_callback(lambda _: self._claims.remove(claim))


def _touch(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
