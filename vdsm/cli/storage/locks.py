# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage locks`: who has what of this host's storage, and who waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from vdsm.cli.connection import connect
from vdsm.cli.output import console, duration, plain, print_json, show

TIMEOUT_S = 10.0
NONE = "No lock is held, and nobody waits for one."


async def show_locks(as_json: bool) -> None:
    async with connect() as client:
        locks = await client.call("storage.getLocks", timeout_s=TIMEOUT_S)
    if as_json:
        print_json(locks)
    elif not locks:
        console().print(NONE)
    else:
        show(table_of(locks))


def table_of(locks: list[Mapping[str, Any]]) -> Table:
    table = plain("lock", "", "mode", "for", "who")
    for lock in locks:
        name = escape(str(lock["lock"]))
        for holder in lock["holders"]:
            table.add_row(name, "held", lock["mode"], duration(holder["seconds"]), escape(holder["who"]))
        for waiter in lock["waiting"]:
            who = escape(waiter["who"])
            table.add_row(name, "[yellow]waits[/]", waiter["mode"], duration(waiter["seconds"]), who)
    return table
