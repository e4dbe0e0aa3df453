# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm doctor --api`: each verb of the field's API, whether the engine calls it, and how far it is built here.

Said by this program's own code: it needs no agent, and an agent of another version may differ.
"""

from __future__ import annotations

import dataclasses

from rich.markup import escape

from vdsm.api import coverage, registry
from vdsm.cli.output import console, print_json

_MARKS = {"built": "[green]✔[/]", "partial": "[yellow]![/]", "not built": "[dim]·[/]"}


def show_coverage(as_json: bool) -> None:
    lines = coverage.lines(registry.load())
    if as_json:
        print_json([dataclasses.asdict(line) for line in lines])
        return
    out = console()
    for line in lines:
        engine = "engine" if line.engine else ""
        out.print(f"{_MARKS[line.kind]} {line.verb:40} {engine:7} {line.role:9} {escape(line.state)}", soft_wrap=True)
    out.print("\n" + coverage.summary(lines), soft_wrap=True)
