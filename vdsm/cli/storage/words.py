# SPDX-License-Identifier: GPL-2.0-or-later
"""Words and colours that several of the tables have in common."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from vdsm.cli.output import bar, duration, size
from vdsm.cli.storage.asked import Row

_STATUS = {"Active": "green", "Attached": "dim"}
_ALIVE = {"live": "green", "free": "dim", "dead": "red", "fail": "red", "unavailable": "green"}
_MIB = 1 << 20


def status(of_domain: str | None) -> str:
    """Of a domain in the connected pool."""
    if of_domain is None:
        return "[dim]not in this host's pool[/]"
    return f"[{_STATUS.get(of_domain, 'yellow')}]{escape(of_domain.lower())}[/]"


def alive(status: str) -> str:
    shown = {"fail": "failing", "unavailable": "live"}.get(status, status)
    return f"[{_ALIVE.get(status, 'yellow')}]{escape(shown)}[/]"


def holder(lease: Row) -> str:
    """Which host has a lease that is held."""
    if lease["here"]:
        return f"[green]this host[/], host id {lease['hostId']}"
    name = f" {escape(lease['name'])}" if lease["name"] else ""
    return f"host id {lease['hostId']}{name}, {alive(lease['status'])}"


def health(of_domain: Row) -> str:
    """Valid or bad, and since when."""
    found = of_domain["health"]
    if found is None:
        return "[dim]not watched[/]"
    if not found["checked"]:
        return "[yellow]being looked at[/]"
    word = "[green]valid[/]" if found["valid"] else f"[red]bad[/] ({found['code']})"
    return f"{word} [dim]for {duration(found['sinceSeconds'])}[/]"


def host_id(of_domain: Row) -> str:
    found = of_domain["health"]
    if found is None:
        return ""
    state = "[green]held[/]" if found["hostIdHeld"] else "[red]not held[/]" if found["reason"] else "[yellow]joining[/]"
    return f"{of_domain['hostId']} {state}"


def room(of_domain: Row, *, short: bool = False) -> str:
    """How full it is, with what is free."""
    found = of_domain["health"]
    if found is None or not found["total"]:
        return ""
    used = 100 * (found["total"] - found["free"]) / found["total"]
    free = f"{size(found['free'] / _MIB)} free"
    return f"{bar(used, 6)} {free}" if short else f"{bar(used)} {free} of {size(found['total'] / _MIB)}"


def unfolded(table: Table, *columns: str) -> Table:
    """What is read at a glance stays in one line: where that has no room, each row becomes a block."""
    for column in table.columns:
        column.no_wrap = column.no_wrap or column.header in columns
    return table
