# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage pools`: the connected pool, and who is its SPM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from vdsm.cli.connection import connect
from vdsm.cli.output import console, fitted, plain, print_json, show
from vdsm.cli.storage.asked import Row, names, rows
from vdsm.cli.storage.words import holder, status

INDENT = 2
NO_POOL = "This host is connected to no pool."


async def show_pools(as_json: bool) -> None:
    async with connect() as client:
        pools = await rows(client, "storage.getPools")
        known = {} if as_json else await names(client)
    if as_json:
        print_json(pools)
    elif not pools:
        console().print(NO_POOL)
    else:
        show(Group(*(block(pool, known) for pool in pools)))


def block(pool: Row, known: Mapping[str, str], indent: int = 0) -> RenderableType:
    domains = plain("domain", "name", "status")
    for domain_id, state in sorted(pool["domains"].items()):
        master = " [cyan]master[/]" if domain_id == pool["master"] else ""
        domains.add_row(domain_id, escape(known.get(domain_id, "")), f"{status(state)}{master}")
    inner = Padding(fitted(domains, indent + INDENT), (0, 0, 0, INDENT), expand=False)
    return Group(fitted(table([pool]), indent), inner)


def table(pools: Sequence[Row]) -> Table:
    table = plain("pool", "name", "SPM", "version", "master version", "this host")
    for pool in pools:
        version = "[dim]unknown[/]" if pool["version"] is None else f"V{pool['version']}"
        own = f"host id {pool['hostId']}"
        table.add_row(pool["id"], escape(pool["name"]), spm(pool), version, str(pool["masterVersion"]), own)
    return table


def spm(pool: Row) -> str:
    """In a few words."""
    if pool["spmStatus"] == "SPM":
        return "[green]this host[/]"
    lease = pool["spmLease"]
    if pool["spmStatus"] == "Contend":
        return "[yellow]this host is about to be[/]"
    if lease is None:
        return f"[red]not known:[/] {escape(pool['trouble'])}"
    if lease["hostId"] is None:
        return "[yellow]nobody[/]"
    return holder(lease)
