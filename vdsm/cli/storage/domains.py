# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage domains`: who each domain is, how it is, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from vdsm.cli.connection import connect
from vdsm.cli.output import console, duration, plain, print_json, show
from vdsm.cli.storage.asked import Row, about
from vdsm.cli.storage.words import health, host_id, room, status, unfolded


async def show_domains(word: str, as_json: bool) -> None:
    async with connect() as client:
        domains = await about(client, "storage.getDomains", word)
    if as_json:
        print_json(domains)
    elif not domains:
        console().print("No domain is known here.")
    else:
        show(table(domains))


def table(domains: Sequence[Row]) -> Table:
    table = plain(
        "domain", "name", "is", "status", "health", "host id", "used", "read in", "checked", "server", "mount", "wrong"
    )
    for domain in domains:
        seen = domain["health"]
        looked = seen is not None and seen["checked"]
        table.add_row(
            domain["id"],
            escape(domain["name"] or ""),
            kind(domain),
            status(domain["status"]),
            health(domain),
            host_id(domain),
            room(domain),
            f"{1000 * seen['delaySeconds']:.1f} ms" if looked and seen["valid"] else "",
            f"{duration(seen['lastCheckSeconds'])} ago" if looked else "",
            escape(domain.get("server", "")),
            escape(domain["mount"]),
            wrong(domain),
        )
    return unfolded(table, "is", "health", "host id", "used", "read in", "checked", "mount")


def kind(domain: Row) -> str:
    """Empty where nobody could read it."""
    if domain["name"] is None:
        return ""
    role = " [cyan]master[/]" if domain["role"] == "Master" else ""
    return f"{escape(domain['class'].lower())} {escape(domain['kind'])} V{domain['version']}{role}"


def wrong(domain: Row) -> str:
    reason = domain["health"]["reason"] if domain["health"] is not None else ""
    return f"[red]{escape(reason or domain['trouble'])}[/]" if reason or domain["trouble"] else ""
