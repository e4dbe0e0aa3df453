# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage`: all of it on one screen. What is wrong stands first, with what to do.

Each question stands alone: what one of them can't answer is said, the rest is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from vdsm.cli.connection import connect
from vdsm.cli.output import count, fitted, plain, print_json, show
from vdsm.cli.storage import connections, faults, pools, tasks
from vdsm.cli.storage.asked import Row, rows
from vdsm.cli.storage.faults import Fault
from vdsm.cli.storage.words import health, room, status, unfolded
from vdsm.client import Client, ConnectionLost, RpcError
from vdsm.common.paths import Paths

INDENT = 2
_QUESTIONS = ("Pools", "Domains", "Hosts", "Leases", "Tasks", "Locks")


@dataclass
class Overview:
    answers: dict[str, list[Row]]
    connections: Sequence[connections.Seen]
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> list[Fault]:
        found = [
            *(Fault(f"{part}: {why}", "") for part, why in self.problems.items()),
            *faults.of_domains(self.answers["domains"]),
            *faults.of_connections(self.connections),
            *faults.of_leases(self.answers["leases"]),
            *faults.of_pools(self.answers["pools"]),
            *faults.of_locks(self.answers["locks"]),
            *faults.of_tasks(self.answers["tasks"]),
        ]
        return sorted(found, key=lambda fault: fault.is_warning)


async def show_all(paths: Paths, as_json: bool) -> bool:
    """Whether a fault was found."""
    async with connect() as client:
        seen = await gather(client, paths)
    if as_json:
        known = {"connections": [asdict(one) for one in seen.connections], "problems": seen.problems}
        print_json({**seen.answers, **known, "faults": [asdict(fault) for fault in seen.faults]})
    else:
        show(screen(seen))
    return any(not fault.is_warning for fault in seen.faults)


async def gather(client: Client, paths: Paths) -> Overview:
    """Raises `ConnectionLost`, `NoAnswer` when there is no agent."""
    found = Overview({}, [])
    answers = await asyncio.gather(*(_ask(client, found, name) for name in _QUESTIONS))
    found.answers = dict(zip(map(str.lower, _QUESTIONS), answers, strict=True))
    try:
        found.connections = connections.connections(paths)
    except OSError as e:  # who may ask the agent may not read its records
        found.problems["connections"] = f"{e.filename}: {e.strerror}"
    return found


async def _ask(client: Client, found: Overview, name: str) -> list[Row]:
    try:
        return await rows(client, f"storage.get{name}")
    except ConnectionLost:
        raise
    except RpcError as e:
        found.problems[name.lower()] = f"{e.message} (code {e.code})"
    return []


def screen(seen: Overview) -> Group:
    parts: list[RenderableType] = [_verdict(seen.faults)]
    known = {domain["id"]: str(domain["name"] or "") for domain in seen.answers["domains"]}
    found = seen.answers["pools"]
    pool: RenderableType = Group(*(fitted(pools.table([one]), INDENT) for one in found)) if found else pools.NO_POOL
    if "pools" not in seen.problems:  # without an answer it is not known whether there is one
        parts += _part("Pool", pool)
    if seen.answers["domains"]:
        parts += _part("Domains", fitted(_domains(seen.answers["domains"]), INDENT))
    if seen.answers["hosts"]:
        parts += _part("Hosts", fitted(_hosts(seen.answers["hosts"], known), INDENT))
    if seen.answers["tasks"]:
        parts += _part("Tasks", fitted(tasks.table(seen.answers["tasks"]), INDENT))
    parts += ["", "[dim]More: vdsm storage pools, domains, hosts, leases, tasks, locks, connections[/]"]
    return Group(*parts)


def _part(title: str, what: RenderableType) -> list[RenderableType]:
    return ["", f"[bold cyan]{title}[/]", Padding(what, (0, 0, 0, INDENT), expand=False)]


def _verdict(found: Sequence[Fault]) -> RenderableType:
    if not found:
        return "[green]✔[/] nothing is wrong"
    lines: list[RenderableType] = []
    for fault in found:
        mark = "[yellow]![/]" if fault.is_warning else "[red]✘[/]"
        lines.append(_hanging(mark, escape(fault.what)))
        if fault.do:
            lines.append(_hanging(" ", f"[dim]→ {escape(fault.do)}[/]"))
    return Group(*lines)


def _hanging(mark: str, text: str) -> Table:
    """A sentence over several lines stands beside its mark."""
    line = Table.grid(padding=(0, 1))
    line.add_column(no_wrap=True)
    line.add_column(overflow="fold")
    line.add_row(mark, text)
    return line


def _domains(found: Sequence[Row]) -> Table:
    table = plain("domain", "name", "health", "used")
    for one in found:
        name = f"{escape(one['name'] or '')}{' [cyan]master[/]' if one.get('role') == 'Master' else ''}"
        how = health(one) if one["status"] == "Active" else status(one["status"])
        table.add_row(one["id"], name, how, room(one, short=True))
    return unfolded(table, "health", "used")


def _hosts(found: Sequence[Row], known: dict[str, str]) -> Table:
    table = plain("domain", "name", "hosts")
    for one in found:
        states = [host["status"] for host in one["hosts"]]
        live, dead = states.count("live"), sum(states.count(state) for state in ("dead", "fail"))
        words = [f"[green]{live} live[/]"] * bool(live) + [f"[red]{dead} dead[/]"] * bool(dead)
        rest = len(states) - live - dead - states.count("free")
        words += [f"{rest} unknown"] * bool(rest) or ["[dim]this host only[/]"] * (not one["shared"])
        table.add_row(one["domain"], escape(known.get(one["domain"], "")), ", ".join(words) or count(0, "host"))
    return table
