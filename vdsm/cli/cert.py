# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm cert`: this host's certificates, looked at and replaced."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import socket
from typing import Annotated

import typer
from rich.markup import escape

from vdsm.certificates import keeping, making, places
from vdsm.certificates.examine import Report, examine
from vdsm.certificates.install import is_interrupted
from vdsm.cli import connection
from vdsm.cli.exits import Exit
from vdsm.cli.output import console, print_json
from vdsm.common.atomic import write_atomic
from vdsm.common.paths import Paths

commands = typer.Typer(help="This host's certificates.", no_args_is_help=True)
Folder = Annotated[str, typer.Option("--pki", metavar="FOLDER", help="Where the certificates lie.")]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", metavar="NAME", help="DNS name or address; the first is the subject. May be given again."),
]
Days = Annotated[int, typer.Option(min=1, max=36500, help="How long it is valid.")]
OF_THE_AGENT = Paths().pki
MAKE_ONE = "deploy the host from its engine; without one: vdsm cert init"


@commands.callback()
def _files_of_this_host() -> None:
    connection.stay_here("cert")


@commands.command()
def status(pki: Folder = OF_THE_AGENT, as_json: connection.AsJson = False) -> None:
    """What there is, how long it lasts, and whether it serves (tried by a TLS handshake).

    Exit code 5: it does not. 1: this user may not read it.
    """
    own, *others = places.known(pki)
    looked_at = [own, *(place for place in others if place.exists())]
    reports = [examine(place) for place in looked_at]
    closed = [file for place in looked_at for file in (place.authority, place.certificate, place.key) if _closed(file)]
    if is_interrupted(pki):
        reports[0].problems.append("an import was cut off; it is finished by the next vdsm cert renew or import")
    if as_json:
        print_json([dataclasses.asdict(report) for report in reports])
    else:
        _show(reports, own_is_closed=own.certificate in closed)
        _show_waiting(pki)
    if closed:  # what is wrong there is not known
        told = f"User {os.geteuid()} may not read {', '.join(dict.fromkeys(closed))}."
        connection.stop(connection.Failure(told, "Run it as root", Exit.REFUSED))
    if any(report.problems for report in reports):
        raise typer.Exit(Exit.FINDINGS)


@commands.command()
def init(
    name: Names = None,
    days: Days = making.DAYS,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    pki: Folder = OF_THE_AGENT,
) -> None:
    """Make an authority on this host, and this host's pair: for hosts without an engine."""
    names = name or _names_of_this_host()
    connection.look(lambda: keeping.init(pki, names, days=days, force=force))
    console().print(f"This host is [bold]{escape(names[0])}[/]. Other hosts and clients: vdsm cert issue")


@commands.command()
def renew(name: Names = None, days: Days = making.DAYS, pki: Folder = OF_THE_AGENT) -> None:
    """New certificates from the authority on this host; where there is none, a signing request for yours."""
    request = connection.look(lambda: keeping.renew(pki, name or [], days=days))
    out = console()
    if request is None:
        out.print("Renewed. The agent uses it from the next connection on.")
        return
    out.print(f"Signing request: [bold]{escape(request.request)}[/] (its key stays beside it)", soft_wrap=True)
    out.print("Have it signed by the engine's authority, then: vdsm cert import --certificate FILE", soft_wrap=True)
    out.print("A host in maintenance gets new ones from its engine: Installation, Enroll Certificate", soft_wrap=True)


@commands.command(name="import")
def import_(
    certificate: Annotated[str, typer.Option(metavar="FILE", help="The signed certificate.")] = "",
    key: Annotated[str, typer.Option(metavar="FILE", help="Its key, if it was not made here.")] = "",
    ca: Annotated[str, typer.Option(metavar="FILE", help="The authority that signed it and the clients.")] = "",
    pki: Folder = OF_THE_AGENT,
) -> None:
    """Put a signed certificate or a new authority in place. Tried first: what would not serve is refused."""

    def work() -> None:
        try:
            keeping.import_(pki, certificate=certificate, key=key, authority=ca)
        except keeping.NothingToImport as e:
            connection.stop(connection.Failure(str(e), e.remedy, Exit.USAGE))

    connection.look(work)
    console().print("Imported. The agent uses it from the next connection on.")
    named = examine(places.host(pki)).names
    if certificate and not any(_is_this_host(name) for name in named):
        told = f"It names {', '.join(named) or 'nobody'}; this host is {socket.gethostname()}."
        typer.secho(f"! {told} If it is another's, import this host's own.", err=True, fg="yellow")


@commands.command()
def issue(
    name: Annotated[list[str], typer.Argument(help="Name of a host or client; more names or addresses.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where the files go.")] = ".",
    request: Annotated[str, typer.Option(metavar="FILE", help="Sign this request; its own names count.")] = "",
    days: Days = making.DAYS,
    pki: Folder = OF_THE_AGENT,
) -> None:
    """Certificate of this host's authority for another host or a client: NAME.pem, NAME.key, cacert.pem."""
    stem = os.path.join(out, name[0])
    if os.sep in name[0]:
        connection.stop(connection.Failure(f"{name[0]!r} is no name of a file.", "", Exit.USAGE))

    def work() -> list[str]:
        if request:
            authority, certificate = keeping.sign(pki, request, days=days)
            files = {f"{stem}.pem": certificate}
        else:
            authority, pair = keeping.issue(pki, name, days=days)
            files = {f"{stem}.key": pair.key, f"{stem}.pem": pair.certificate}
        files[os.path.join(out, "cacert.pem")] = authority
        os.makedirs(out, exist_ok=True)
        for file, data in files.items():
            write_atomic(file, data, mode=0o600 if file.endswith(".key") else 0o644)
        return list(files)

    for file in connection.look(work):
        typer.echo(file)


def _names_of_this_host() -> list[str]:
    found = [socket.getfqdn(), socket.gethostname()]
    return [name for name in dict.fromkeys(found) if name != "localhost"] or ["localhost"]


def _is_this_host(name: str) -> bool:
    """By its name with or without the domain, or an address that one of its interfaces has."""
    own = socket.gethostname().lower().partition(".")[0]
    if name.lower().partition(".")[0] == own:
        return True
    try:
        address = ipaddress.ip_address(name)
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((name, 0))
    except (ValueError, OSError):
        return False
    return True


def _closed(file: str) -> bool:
    """To this user. What is not there is not closed."""
    try:
        os.stat(file)
    except OSError as e:
        return isinstance(e, PermissionError)
    return not os.access(file, os.R_OK)


def _show(reports: list[Report], *, own_is_closed: bool) -> None:
    out = console()
    if not own_is_closed and not os.path.exists(reports[0].file):
        out.print(f"There is no certificate: {MAKE_ONE}", soft_wrap=True)
    for report in reports:
        mark = "[red]✘[/]" if report.problems else "[yellow]![/]" if report.expires_soon else "[green]✔[/]"
        out.print(f"{mark} [bold]{report.name}[/]  {escape(report.file)}  [dim]{report.use}[/]", soft_wrap=True)
        if report.days_left is not None:
            out.print(f"    subject    {escape(report.subject)}", soft_wrap=True)
            out.print(f"    names      {escape(', '.join(report.names)) or 'none'}", soft_wrap=True)
            out.print(f"    issued by  {escape(report.issuer)}{_authority_left(report)}", soft_wrap=True)
            out.print(f"    expires    {report.expires}, {_left(report.days_left)}", soft_wrap=True)
        for problem in report.problems:
            out.print(f"    [red]{escape(problem)}[/]", soft_wrap=True)


def _show_waiting(pki: str) -> None:
    request = os.path.join(pki, places.WAITING_REQUEST)
    if os.path.exists(request):
        console().print(f"  waits for its certificate: {escape(request)}", soft_wrap=True)


def _left(days: int) -> str:
    return f"[red]expired {-days} days ago[/]" if days < 0 else f"{days} days left"


def _authority_left(report: Report) -> str:
    days = report.authority_days_left
    return f" ({_left(days)})" if days is not None else ""
