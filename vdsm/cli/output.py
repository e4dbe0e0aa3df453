# SPDX-License-Identifier: GPL-2.0-or-later
"""How results look: JSON for scripts, tables for people.

An id is never broken over two lines. A pipe gets lines of whatever length, each ending with its last character, so that
the same answer gives the same text everywhere. A table too wide for the terminal becomes a block for each entry.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

# more than any line has
UNLIMITED = 1 << 14
# of a table that a person takes in at a glance
MAX_COLUMNS = 6
# columns of `plain` that hold ids
_OF_IDS = frozenset({"id", "pool", "domain", "VM"})


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # where the command begins, it is known what to do


def console() -> Console:
    """Of the terminal's width; a pipe gets wide lines, so that nothing is cut."""
    return _Screen(highlight=False) if sys.stdout.isatty() else _Screen(highlight=False, width=UNLIMITED)


def show(what: RenderableType) -> None:
    sys.stdout.write(drawn(what))
    sys.stdout.flush()


def drawn(what: RenderableType) -> str:
    """As text, with the terminal's colours if it is one."""
    out = console()
    with out.capture() as taken:
        out.print(what)
    text = taken.get()
    return text if out.is_terminal else "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def print_result(value: Any) -> None:
    """A verb's answer for a person: what is short as text or table, what is deep as JSON."""
    if value is True or value is None:
        console().print("[green]done[/]")
    elif isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        table, out = rows(value), console()
        width = out.measure(table, options=out.options.update(max_width=UNLIMITED)).maximum
        if len(table.columns) <= MAX_COLUMNS and width <= out.width:
            show(table)
            return
        for number, entry in enumerate(value):
            sys.stdout.write("\n" * bool(number))
            show(_members(entry))
    elif isinstance(value, list):
        for entry in value:
            sys.stdout.write(f"{in_cell(entry)}\n")
    elif isinstance(value, dict):
        show(_members(value))
    else:
        sys.stdout.write(f"{in_cell(value)}\n")


def _members(entry: dict[str, Any]) -> Table:
    table = plain("", "")
    table.show_header = False
    for key, member in entry.items():
        table.add_row(f"[bold]{escape(str(key))}[/]", escape(in_cell(member)))
    return table


def rows(entries: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(key for entry in entries for key in entry))
    table = plain(*names)
    for entry in entries:
        table.add_row(*(escape(in_cell(entry.get(name, ""))) for name in names))
    return table


def plain(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _OF_IDS)
    return table


def in_cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)


def count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def bar(percent: float, width: int = 12) -> str:
    """A gauge with its colour."""
    percent = min(100.0, max(0.0, percent))
    full = round(percent * width / 100)
    colour = "green" if percent < 75 else "yellow" if percent < 90 else "red"
    return f"[{colour}]{'━' * full}[/][dim]{'━' * (width - full)}[/] {percent:3.0f} %"


def duration(seconds: float) -> str:
    whole = int(seconds)
    days, rest = divmod(whole, 86400)
    if days:
        return f"{days} d {rest // 3600} h"
    hours, rest = divmod(rest, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min" if rest >= 60 else f"{rest} s"
