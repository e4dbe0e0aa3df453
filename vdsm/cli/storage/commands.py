# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of `vdsm storage` and their options. What they do stands in the modules they call."""

from __future__ import annotations

from typing import Annotated

import typer

from vdsm.cli import connection
from vdsm.cli.connection import AsJson
from vdsm.cli.exits import Exit
from vdsm.cli.storage import asked, connections, domains, hosts, leases, locks, overview, pools, tasks
from vdsm.common.paths import Paths

commands = typer.Typer(
    help="Storage of this host. Without a command: all of it on one screen, what is wrong and what to do first.",
)
Domain = Annotated[
    str, typer.Argument(help="A domain, by its id, the beginning of that, or its name.", autocompletion=asked.complete)
]


@commands.callback(invoke_without_command=True)
def whole(context: typer.Context, as_json: AsJson = False) -> None:
    connection.stay_here("storage")
    if context.invoked_subcommand is None and connection.carry_out(overview.show_all(Paths(), as_json)):
        raise typer.Exit(Exit.FINDINGS)


@commands.command("pools")
def show_pools(as_json: AsJson = False) -> None:
    """The pool that this host is connected to: master, versions, domains, who is SPM."""
    connection.carry_out(pools.show_pools(as_json))


@commands.command("domains")
def show_domains(domain: Domain = "", as_json: AsJson = False) -> None:
    """Domains: who they are, whether they answer and since when, room, host id, server and mount."""
    connection.carry_out(domains.show_domains(domain, as_json))


@commands.command("hosts")
def show_hosts(domain: Domain = "", as_json: AsJson = False) -> None:
    """Hosts in the lockspace of each domain: alive or dead, and which one is this host."""
    connection.carry_out(hosts.show_hosts(domain, as_json))


@commands.command("leases")
def show_leases(domain: Domain = "", as_json: AsJson = False) -> None:
    """Who holds the lease of each domain; of a named one also the leases of its volumes that are held."""
    connection.carry_out(leases.show_leases(domain, as_json))


@commands.command("tasks")
def show_tasks(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until all have ended; Ctrl-C ends none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tasks of the SPM and jobs of this host: state, progress, result."""
    if follow and as_json:
        connection.stop(connection.Failure("--follow is for people, --json for scripts: give one.", "", Exit.USAGE))
    if not follow:
        connection.carry_out(tasks.show_tasks(as_json))
    elif connection.carry_out(tasks.follow()):
        raise typer.Exit(Exit.REFUSED)


@commands.command("connections")
def show_connections(as_json: AsJson = False) -> None:
    """What is connected, who uses it, which connections of engines wanted it, and why one failed."""
    connection.look(lambda: connections.show_connections(Paths(), as_json))


@commands.command("locks")
def show_locks(as_json: AsJson = False) -> None:
    """Who works on which domain and image, who waits for it, and for how long."""
    connection.carry_out(locks.show_locks(as_json))
