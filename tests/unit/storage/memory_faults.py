# SPDX-License-Identifier: GPL-2.0-or-later
"""What befalls a storage in memory: errors, delays, the death of whoever uses it, at any of its calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


class Died(BaseException):
    """The process is gone: nothing of it runs after this, no clean-up either."""


class Stopped:
    """A call stands still when it is ``reached``, until ``go``."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()


@dataclass
class Faults:
    """``calls`` names all that was asked, ``changes`` counts what changed the storage."""

    calls: list[str] = field(default_factory=list)
    changes: int = 0
    dies_before: int | None = None
    """The change that it does not live to see, counted from 0."""
    _errors: dict[str, Exception] = field(default_factory=dict)
    _stops: dict[str, Stopped] = field(default_factory=dict)

    def fail(self, call: str, error: Exception) -> None:
        self._errors[call] = error

    def stop(self, call: str) -> Stopped:
        stopped = self._stops[call] = Stopped()
        return stopped

    def heal(self) -> None:
        self._errors.clear()

    async def read(self, call: str) -> None:
        """A call that changes nothing is about to be done."""
        self._alive()
        self.calls.append(call)
        stopped = self._stops.pop(call, None)
        if stopped is not None:
            stopped.reached.set()
            await stopped.go.wait()
        await asyncio.sleep(0)
        if call in self._errors:
            raise self._errors[call]

    async def change(self, call: str) -> None:
        await self.read(call)
        self._alive()
        self.changes += 1

    def _alive(self) -> None:
        if self.dies_before is not None and self.changes >= self.dies_before:
            raise Died
