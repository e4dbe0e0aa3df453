# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from storage import locks
from storage.lock_table import Locks
from storage.locks import Mode
from vdsm.api.storage_locks import storage_get_locks
from vdsm.api.types import NoParams


async def test_who_has_a_lock_and_who_waits_for_it_is_answered() -> None:
    table = Locks()
    call = cast(Any, SimpleNamespace(agent=SimpleNamespace(storage=SimpleNamespace(locks=table))))
    async with table.hold([locks.domain("d"), locks.image("d", "i")], who="task 1 (createVolume)"):
        waiting = asyncio.create_task(table.take([locks.domain("d", Mode.EXCLUSIVE)], who="StorageDomain.detach"))
        await asyncio.sleep(0)
        domain, image = await storage_get_locks(call, NoParams())
        waiting.cancel()
    assert (domain["lock"], domain["mode"], image["lock"]) == ("00_storage/d", "shared", "01_img_d/i")
    assert [holder["who"] for holder in domain["holders"]] == ["task 1 (createVolume)"]
    assert [(waiter["who"], waiter["mode"]) for waiter in domain["waiting"]] == [("StorageDomain.detach", "exclusive")]
    assert 0 <= domain["waiting"][0]["seconds"] <= domain["holders"][0]["seconds"] < 10
    assert await storage_get_locks(call, NoParams()) == []
