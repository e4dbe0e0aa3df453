# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage leases`: who holds what, and on this host which processes keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding

from vdsm.cli.connection import connect
from vdsm.cli.output import console, count, fitted, plain, print_json, show
from vdsm.cli.storage.asked import Row, about, names
from vdsm.cli.storage.hosts import INDENT, heading
from vdsm.cli.storage.words import holder


async def show_leases(word: str, as_json: bool) -> None:
    async with connect() as client:
        found = await about(client, "storage.getLeases", word)
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
        if domain["leases"]:
            parts.append(Padding(_table(domain), (0, 0, 0, INDENT), expand=False))
        if domain["unread"]:
            rest = f"[yellow]{count(domain['unread'], 'volume')} more: their leases were not read[/]"
            parts.append(Padding(rest, (0, 0, 0, INDENT)))
    return Group(*parts[1:])


def _table(domain: Row) -> RenderableType:
    table = plain("lease", "holder", "taken", "generation", "process", "kept by", "image")
    for lease in domain["leases"]:
        held = lease["hostId"] is not None
        who = holder(lease) if held else "[red]this host[/]" if lease["pid"] else "[dim]free[/]"
        table.add_row(
            "SDM" if lease["resource"] == "SDM" else f"volume {escape(lease['resource'])}",
            who,
            _times(lease["version"]),
            str(lease["generation"]) if lease["generation"] else "",
            process(lease),
            escape(", ".join(lease["writers"])),
            escape(lease["image"]),
        )
    return fitted(table, INDENT)


def _times(version: int) -> str:
    return "" if version < 0 else "never" if version == 0 else f"{version} times" if version > 1 else "once"


def process(lease: Row) -> str:
    if lease["pid"] is None:
        return ""
    return f"{lease['pid']} [red]which has ended[/]" if lease["ended"] else str(lease["pid"])
