# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm hooks`: looks at the hooks folder and the trace itself, so it works while the agent is down."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.syntax import Syntax

from vdsm import config
from vdsm.cli.calling import read_text
from vdsm.cli.output import console, plain, print_json, show
from vdsm.common.paths import Paths
from vdsm.hooking import trace
from vdsm.hooking.directory import Directories, trust_of
from vdsm.hooking.dry_run import Trial, try_point
from vdsm.hooking.limits import Limits
from vdsm.hooking.lint import Finding, Severity, lint
from vdsm.hooking.points import POINTS
from vdsm.hooking.records import Result, RunRecord

AGENT_UID = 36
_TRACE_CHARACTERS = 200  # of a script's standard error, for each of its lines in the trace
_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def installed(hooks_folder: str) -> list[dict[str, Any]]:
    """Every script in the order in which it would run."""
    found = []
    for point in POINTS.values():
        directories = Directories(hooks_folder, trust_of(0 if point.as_root else AGENT_UID))
        for script in directories.scripts(point.name):
            found.append(
                {
                    "point": point.name,
                    "script": script.name,
                    "runs": point.wired and not script.refused,
                    "refused": script.refused or ("" if point.wired else "the agent does not run this point yet"),
                }
            )
    return found


def show_installed(hooks_folder: str, every_point: bool, as_json: bool) -> None:
    scripts = installed(hooks_folder)
    if as_json:
        print_json(scripts)
        return
    if every_point:
        table = plain("point", "gets", "a failure", "runs as", "when")
        for point in POINTS.values():
            failure = "aborts" if point.aborts else "is told"
            user = "root" if point.as_root else "vdsm"
            name = point.name if point.wired else f"[dim]{point.name} (not yet)[/]"
            table.add_row(name, str(point.data), failure, user, point.when)
        show(table)
        return
    if not scripts:
        console().print(f"No scripts in {escape(hooks_folder)}. The points: vdsm hooks list --all")
        return
    table = plain("point", "script", "")
    for entry in scripts:
        state = "[green]runs[/]" if entry["runs"] else f"[red]never runs:[/] {escape(entry['refused'])}"
        table.add_row(entry["point"], escape(entry["script"]), state)
    show(table)


def show_findings(hooks_folder: str, as_json: bool) -> bool:
    """Whether there is an error."""
    findings = lint(hooks_folder, AGENT_UID)
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    elif not findings:
        console().print("[green]Every file in the hooks folder is in order.[/]")
    else:
        for finding in findings:
            _tell(finding)
    return any(finding.severity is Severity.ERROR for finding in findings)


def _tell(finding: Finding) -> None:
    out = console()
    out.print(f"[{_COLOURS[finding.severity]}]{finding.severity:7}[/] {escape(finding.path)}", soft_wrap=True)
    out.print(f"        {escape(finding.problem)}", soft_wrap=True)
    if finding.remedy:
        out.print(f"        [dim]→ {escape(finding.remedy)}[/]", soft_wrap=True)


async def try_scripts(paths: Paths, point: str, document: str, custom: Mapping[str, str]) -> Trial:
    text = read_text(document) if document else ""
    settings = config.load(paths)
    limits = Limits(settings.hook_timeout_s, dict(settings.hook_timeouts_s))
    return await try_point(paths.hooks, point, text, custom=custom, limits=limits)


def show_trial(trial: Trial, as_json: bool) -> None:
    if as_json:
        print_json({"text": trial.text, "diff": trial.diff, "notes": trial.notes, "run": trial.record.to_json()})
        return
    _show_run(trial.record, whole=True)
    for note in trial.notes:
        console().print(f"[yellow]note[/] {escape(note)}")
    if trial.diff:
        console().print(Syntax(trial.diff, "diff", background_color="default"))
    elif not trial.failed:
        console().print("[dim]The document stays as it was.[/]")


def show_trace(paths: Paths, point: str, vm_id: str, last: int, as_json: bool) -> None:
    records = trace.read(trace.folder_of(paths), point=point, vm_id=vm_id, last=last)
    if as_json:
        print_json([record.to_json() for record in records])
        return
    if not records:
        about = f" of VM {vm_id}" * bool(vm_id) + f" at {point}" * bool(point)
        sys.stdout.write(f"The trace has no run{about}.\n" if about else "No hook has run yet.\n")
    for record in records:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started_at_s))
        about = f" VM {record.vm_id}" if record.vm_id else ""
        console().print(f"[dim]{when}[/] [bold]{escape(record.point)}[/]{escape(about)} {record.seconds:.3f} s")
        _show_run(record)


def _end_of(text: str) -> str:
    """The last lines of a script's standard error, none of them cut if one has room."""
    if len(text) <= _TRACE_CHARACTERS:
        return text
    end = text[-_TRACE_CHARACTERS:]
    _, _, whole_lines = end.partition("\n")
    return f"...\n{whole_lines or end}"


def _show_run(record: RunRecord, whole: bool = False) -> None:
    """``whole``: all that a script said, for who writes it; else its end, for who looks through many runs."""
    table = plain("script", "result", "code", "time", "")
    for script in record.scripts:
        colour = "green" if script.result is Result.DONE else "red"
        stderr = script.stderr.strip()
        stderr = stderr if whole else _end_of(stderr)
        between = ":\n" if "\n" in stderr else ": "
        said = between.join(filter(None, [script.reason, stderr]))
        table.add_row(
            escape(script.script),
            f"[{colour}]{script.result}[/]",
            str(script.code),
            f"{1000 * script.seconds:.0f} ms",
            escape(said),
        )
    show(table)
