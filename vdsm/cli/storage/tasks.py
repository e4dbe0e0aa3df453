# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage tasks`: long work, once or until all of it has ended. Watching changes nothing: Ctrl-C ends no task.

On a terminal the bars move; a pipe gets a line for each change.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from vdsm.cli.connection import connect
from vdsm.cli.output import bar, console, fitted, plain, print_json, show
from vdsm.cli.storage.asked import Row, rows

LOOK_S = 0.5
NONE = "There are no tasks."


async def show_tasks(as_json: bool) -> None:
    async with connect() as client:
        found = await rows(client, "storage.getTasks")
    if as_json:
        print_json(found)
    elif not found:
        console().print(NONE)
    else:
        show(table(found))


async def follow() -> bool:
    """Whether a task has failed."""
    out = console()
    async with connect() as client:
        found = await rows(client, "storage.getTasks")
        if not found:
            out.print(NONE)
            return False
        if out.is_terminal:
            with Live(_drawn(found), console=out, auto_refresh=False) as live:
                while not all(task["isDone"] for task in found):
                    await asyncio.sleep(LOOK_S)
                    found = await rows(client, "storage.getTasks")
                    if found:  # what was cleared meanwhile stays to be read
                        live.update(_drawn(found), refresh=True)
            return any(task["failed"] for task in found)
        told: dict[str, str] = {}
        while True:
            _tell_changes(out, found, told)
            if all(task["isDone"] for task in found):
                return any(task["failed"] for task in found)
            await asyncio.sleep(LOOK_S)
            found = await rows(client, "storage.getTasks")


def table(found: Sequence[Row]) -> Table:
    table = plain("id", "what", "state", "progress", "result")
    for task in found:
        table.add_row(task["id"], escape(task["verb"]), state(task), progress(task), escape(result(task)))
    return table


def _drawn(found: Sequence[Row]) -> RenderableType:
    return fitted(table(found))


def _tell_changes(out: Console, found: Sequence[Row], told: dict[str, str]) -> None:
    for task in found:
        percent = "" if task["progress"] is None or task["isDone"] else f" {task['progress']:.0f} %"
        line = f"{task['id']} {task['verb']} {task['state']}{percent} {result(task)}".rstrip()
        if told.get(task["id"]) != line:
            out.print(escape(line))
            told[task["id"]] = line
    sys.stdout.flush()


def state(task: Row) -> str:
    colour = "red" if task["failed"] else "green" if task["isDone"] else "cyan"
    return f"[{colour}]{escape(task['state'])}[/]"


def progress(task: Row) -> str:
    """Of what goes on: how far, where that is told."""
    if task["isDone"]:
        return ""
    return "[dim]under way[/]" if task["progress"] is None else bar_of(task["progress"])


def bar_of(percent: float) -> str:
    """All is well however far it is: the colours of a gauge mean something else."""
    return bar(percent).replace("[yellow]", "[cyan]").replace("[red]", "[cyan]").replace("[green]", "[cyan]")


def result(task: Row) -> str:
    """What there is to say: why it failed, or what came out."""
    if task["failed"]:
        return f"{task['message']} (code {task['code']})"
    return str(task["result"] or "")
