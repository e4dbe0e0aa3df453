# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage hosts`: who is in the lockspace of each domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding

from vdsm.cli.connection import connect
from vdsm.cli.output import console, duration, fitted, plain, print_json, show
from vdsm.cli.storage.asked import Row, about, names
from vdsm.cli.storage.words import alive

INDENT = 2


async def show_hosts(word: str, as_json: bool) -> None:
    async with connect() as client:
        found = await about(client, "storage.getHosts", word)
        known = {} if as_json else await names(client)
    if as_json:
        print_json(found)
    elif not found:
        console().print("No domain is active here.")
    else:
        show(blocks(found, known))


def blocks(found: Sequence[Row], known: Mapping[str, str]) -> RenderableType:
    parts: list[RenderableType] = []
    for domain in found:
        parts += ["", heading(domain["domain"], known)]
        if domain["trouble"]:
            parts.append(Padding(f"[red]no answer:[/] {escape(domain['trouble'])}", (0, 0, 0, INDENT)))
        if domain["hosts"]:
            parts.append(Padding(_table(domain), (0, 0, 0, INDENT), expand=False))
        elif not domain["shared"]:
            parts.append(Padding("[dim]no host ids: only this host uses it[/]", (0, 0, 0, INDENT)))
        elif not domain["trouble"]:
            parts.append(Padding("[dim]nobody[/]", (0, 0, 0, INDENT)))
    return Group(*parts[1:])


def heading(domain_id: str, known: Mapping[str, str]) -> RenderableType:
    name = known.get(domain_id, "")
    return f"[bold cyan]{domain_id}[/]{f' {escape(name)}' if name else ''}"


def _table(domain: Row) -> RenderableType:
    table = plain("host id", "name", "state", "renewed", "generation", "")
    for host in domain["hosts"]:
        table.add_row(
            str(host["hostId"]),
            escape(host["name"]),
            alive(host["status"]),
            _renewed(host, domain["limitSeconds"]),
            str(host["generation"]),
            "[green]this host[/]" if host["here"] else "",
        )
    return fitted(table, INDENT)


def _renewed(host: Row, limit_s: float) -> str:
    """A record's time is by the clock of its host: of others it is known only whether they are in time."""
    if host["renewedSeconds"] is not None:
        return f"{duration(host['renewedSeconds'])} ago"
    if host["status"] == "live":
        return f"within {duration(limit_s)}"
    return f"not for {duration(limit_s)}" if host["status"] == "dead" else ""
