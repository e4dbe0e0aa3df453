# SPDX-License-Identifier: GPL-2.0-or-later
"""How results look: JSON for scripts, tables for people.

An id is never broken over two lines. A pipe gets lines of whatever length, each ending with its last character, so that
the same answer gives the same text everywhere. A table too wide for the terminal becomes a block for each entry, and
in a block what has no room beside its name stands below it.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

# more than any line has
UNLIMITED = 1 << 14
# of a table that a person takes in at a glance
MAX_COLUMNS = 6
# between two columns
GAP = 2
# the least room in which a column of text can be read
WORD = 12
# in a sentence
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# columns of `plain` that hold ids
_OF_IDS = frozenset({"id", "pool", "domain", "VM"})


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # where the command begins, it is known what to do


def console() -> Console:
    """Of the terminal's width; a pipe gets wide lines, so that nothing is cut."""
    return _Screen(highlight=False) if sys.stdout.isatty() else _Screen(highlight=False, width=UNLIMITED)


def show(what: RenderableType) -> None:
    if isinstance(what, Table):
        what = fitted(what)
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
        if not value and console().is_terminal:
            console().print("[dim]none[/]")
        for entry in value:
            sys.stdout.write(f"{in_cell(entry)}\n")
    elif isinstance(value, dict):
        show(_members(value))
    else:
        sys.stdout.write(f"{in_cell(value)}\n")


def _members(entry: dict[str, Any]) -> RenderableType:
    rows = [(f"[bold]{escape(str(key))}[/]", escape(in_cell(member))) for key, member in entry.items()]
    return _block(rows, console().width)


def fitted(table: Table, indent: int = 0) -> RenderableType:
    """The table itself where its columns can be read on this screen, else a block for each of its rows."""
    room = console().width - indent
    if not table.show_header or sum(map(_least, table.columns)) + GAP * (len(table.columns) - 1) <= room:
        return table
    headers = [f"[dim]{escape(str(column.header))}[/]" if column.header else "" for column in table.columns]
    blocks: list[RenderableType] = []
    for row in zip(*(column.cells for column in table.columns), strict=True):
        cells = [(header, str(cell)) for header, cell in zip(headers, row, strict=True) if cell]
        blocks += ["", _block(cells, room)]
    return Group(*blocks[1:])


def _least(column: Column) -> int:
    cells = [_plain_text(str(cell)) for cell in (column.header, *column.cells)]
    if column.no_wrap:
        return max(map(len, cells))
    ids = (len(found) for cell in cells for found in _ID.findall(cell))
    return max(min(WORD, max(map(len, cells))), *ids, 0)


def _block(entries: list[tuple[str, str]], room: int) -> RenderableType:
    """Names with values, in markup. Side by side, unless that breaks a word which has room below its name."""
    beside = room - GAP - max((len(_plain_text(name)) for name, _ in entries), default=0)
    words = [word for _, text in entries for word in _plain_text(text).split()]
    if beside < WORD or any(beside < len(word) <= room - GAP for word in words):
        lines: list[RenderableType] = []
        for name, text in entries:
            if name and len(_plain_text(name)) + GAP + len(_plain_text(text)) <= room:
                lines.append(f"{name}{' ' * GAP}{text}")
                continue
            lines += [name] if name else []
            lines.append(Padding(Text.from_markup(text, overflow="fold"), (0, 0, 0, GAP)))
        return Group(*lines)
    table = plain("", "")
    table.show_header = False
    for name, text in entries:
        table.add_row(name, text)
    return table


def _plain_text(markup: str) -> str:
    return Text.from_markup(markup).plain


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
