# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands and their options. What they do stands in the modules they call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from vdsm.cli import cert, connection, doctor, hooks, output, watching
from vdsm.cli.calling import call as call_verb
from vdsm.cli.calling import failed_entries, verb_names
from vdsm.cli.connection import AsJson
from vdsm.cli.exits import Exit
from vdsm.cli.numbers import pause, seconds
from vdsm.cli.numbers import port as tcp_port
from vdsm.cli.storage import commands as storage
from vdsm.client.stomp import PORT
from vdsm.common.paths import Paths
from vdsm.hooking.points import POINTS, find
from vdsm.version import VERSION

T = TypeVar("T")

EXITS = (
    "Exit codes: 0 done, 1 the agent answered with an error, 2 wrong usage, 3 agent not reachable,"
    " 4 no answer in time, 5 faults found (doctor, storage, hooks lint, hooks try, cert status)."
)
# commands inherit it
_HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    help="Look at and drive this host's agent.", epilog=EXITS, no_args_is_help=True, context_settings=_HELP
)
hook_commands = typer.Typer(help="Hook scripts: what is installed, what is wrong, what they did.", no_args_is_help=True)
app.add_typer(hook_commands, name="hooks")
app.add_typer(cert.commands, name="cert")
app.add_typer(storage.commands, name="storage")


def _verbs(incomplete: str) -> list[str]:
    return [name for name in verb_names() if name.lower().startswith(incomplete.lower())]


def _points(incomplete: str) -> list[str]:
    return [name for name in POINTS if name.startswith(incomplete)]


def _words_of(read: Callable[[str], T]) -> Callable[[str], T]:
    """What the option says of a wrong value: our words alone, not those of the library that parses."""

    def parse(text: str) -> T:
        try:
            return read(text)
        except ValueError as e:
            raise typer.BadParameter(str(e)) from None

    return parse


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vdsm-agent {VERSION}")
        raise typer.Exit(Exit.DONE)


PointName = Annotated[str, typer.Argument(help="Hook point.", autocompletion=_points)]


@app.callback()
def choose_host(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Another host's agent, by its port and TLS.")] = "",
    port: Annotated[
        int | None, typer.Option(parser=_words_of(tcp_port), help="With --host: its port.", show_default=str(PORT))
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="With --host: without TLS, for reading only.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Version of this program.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    if not host and (insecure or port is not None):
        connection.stop(
            connection.Failure("--port and --insecure are of another host: give --host, too", "", Exit.USAGE)
        )
    connection.go_to(connection.Remote(host, port or PORT, not insecure) if host else None)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def serve(context: typer.Context) -> None:
    """Run the agent (for systemd)."""
    from vdsm.cli.serve import serve as run_agent

    run_agent(list(context.args))


@app.command()
def call(
    verb: Annotated[str, typer.Argument(help="Namespace.verb", autocompletion=_verbs)],
    words: Annotated[
        list[str] | None, typer.Argument(help="key=value, key.sub=value, key=@file; or JSON, @file, - (stdin)")
    ] = None,
    as_json: AsJson = False,
    timeout: Annotated[float, typer.Option(parser=_words_of(seconds), help="Seconds to wait for the answer.")] = 120.0,
) -> None:
    """Call any verb of the API. 'vdsm call rpc.discover --json' describes them all."""
    answer = connection.carry_out(call_verb(verb, words or [], timeout), "Wait longer with --timeout")
    try:
        if as_json:
            output.print_json(answer)
        else:
            output.print_result(answer)
    except RecursionError:
        connection.stop(connection.Failure(f"{verb}: the answer is nested too deep to be shown", "", Exit.REFUSED))
    failed = failed_entries(answer)
    if failed:
        connection.stop(connection.Failure(f"{verb}: {'; '.join(failed)}", "", Exit.REFUSED))


@app.command()
def status(
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(parser=_words_of(pause), help="Seconds between two looks.")] = 2.0,
) -> None:
    """Host, pool, domains, networks and VMs on one screen. A part without answer is told, and is an error."""
    if watch and as_json:
        connection.stop(connection.Failure("--watch is for people, --json for scripts: give one.", "", Exit.USAGE))
    if watch:
        connection.carry_out(watching.watch_status(interval))
        return
    missing = connection.carry_out(watching.show_status(as_json))
    if missing:
        raise typer.Exit(missing)


@app.command()
def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    for_s: Annotated[
        float, typer.Option("--for", parser=_words_of(seconds), help="Without --follow: how many seconds.")
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """What the agent tells: one line for each event from now on."""
    connection.carry_out(watching.show_events(None if follow else for_s, as_json))


@app.command(name="doctor")
def doctor_command(
    api: Annotated[bool, typer.Option("--api", help="Only the verbs of the API: called by the engine, built.")] = False,
    as_json: AsJson = False,
) -> None:
    """What this host lacks, each with the remedy."""
    if api:
        from vdsm.cli.api_coverage import show_coverage

        show_coverage(as_json)
        return
    connection.stay_here("doctor")
    results = connection.carry_out(doctor.examine(Paths()))
    doctor.show(results, as_json)
    if any(result.level is doctor.Level.FAULT for result in results):
        raise typer.Exit(Exit.FINDINGS)


@app.command()
def version() -> None:
    """Version of this program."""
    _tell_version(True)


@hook_commands.callback()
def _hooks_are_files() -> None:
    connection.stay_here("hooks")


@hook_commands.command("list")
def hooks_list(
    every: Annotated[bool, typer.Option("--all", help="All points that there are.")] = False, as_json: AsJson = False
) -> None:
    """Installed scripts in the order in which they run."""
    connection.look(lambda: hooks.show_installed(Paths().hooks, every, as_json))


@hook_commands.command("lint")
def hooks_lint(as_json: AsJson = False) -> None:
    """Why a file will never run, is refused, or is going to fail."""
    if connection.look(lambda: hooks.show_findings(Paths().hooks, as_json)):
        raise typer.Exit(Exit.FINDINGS)


@hook_commands.command("try")
def hooks_try(
    point: PointName,
    document: Annotated[str, typer.Argument(help="File with the XML or JSON; - is standard input.")] = "",
    custom: Annotated[list[str] | None, typer.Option("--custom", help="Custom property of the VM: key=value.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a point's scripts over a document, without a VM; show what they change. The scripts really run."""
    properties = {}
    for word in custom or []:
        key, sign, value = word.partition("=")
        if not sign:
            connection.stop(connection.Failure(f"--custom {word!r}: expected key=value", "", Exit.USAGE))
        properties[key] = value
    trial = connection.carry_out(hooks.try_scripts(Paths(), point, document, properties))
    hooks.show_trial(trial, as_json)
    if trial.failed:
        raise typer.Exit(Exit.FINDINGS)


@hook_commands.command("trace")
def hooks_trace(
    point: Annotated[str, typer.Option(help="Only of this point.", autocompletion=_points)] = "",
    vm: Annotated[str, typer.Option(help="Only of this VM.")] = "",
    last: Annotated[int, typer.Option(min=1, help="How many runs.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What ran lately: result, time, standard error of each script."""
    if point:
        connection.look(lambda: find(point))
    connection.look(lambda: hooks.show_trace(Paths(), point, vm, last, as_json))
