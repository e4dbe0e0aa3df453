# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's answers to its SPM process: removals announced and ended, the master moved, events passed on.

One object for one SPM process: what that process had announced ends with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from storage.in_use import InUse
from storage.spm.agent import ODD_TASK, STEP
from vdsm.common.errors import RemoteError
from vdsm.common.types import Json

Told = Callable[[str], None]
"""Called with a sentence on something in the tasks' folder that is no task."""


Moved = Callable[[str, int], Awaitable[None]]
"""Called with the pool's new master and its version."""


class Removals:
    def __init__(self, in_use: InUse, told: Told, moved: Moved, step: Callable[[str], None] | None = None) -> None:
        """``step``: called with what the process is at."""
        self._in_use = in_use
        self._told = told
        self._moved = moved
        self._step = step
        self._running: dict[int, ExitStack] = {}

    async def serve(self, verb: str, params: dict[str, Any]) -> Json:
        match verb:
            case "removal.begin":
                with ExitStack() as stack:
                    removing = self._in_use.removing(params["domain_id"], params["image_id"], params["volume_ids"])
                    stack.enter_context(removing)
                    self._running[params["number"]] = stack.pop_all()
            case "removal.end":
                with contextlib.suppress(KeyError):  # its beginning was refused
                    self._running.pop(params["number"]).close()
            case "master.moved":
                await self._moved(params["domain_id"], params["version"])
            case _:
                raise RemoteError("agent", f"The agent has no verb {verb!r} for its SPM process")
        return None

    def notified(self, topic: str, params: dict[str, Any]) -> None:
        if topic == ODD_TASK:
            self._told(str(params.get("what", "")))
        elif topic == STEP and self._step is not None:
            self._step(str(params.get("what", "")))

    def end_all(self) -> None:
        while self._running:
            self._running.popitem()[1].close()
