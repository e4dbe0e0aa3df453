# SPDX-License-Identifier: GPL-2.0-or-later
"""What a part measures, how it is shown, and the page that keeps it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

Row = Sequence[str]


@dataclass(frozen=True)
class Table:
    title: str
    columns: Row
    rows: Sequence[Row]
    note: str = ""


def machine() -> str:
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    memory_kib = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return (
        f"{os.cpu_count()} x {model}, {memory_kib / (1 << 20):.1f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, aiohttp {version('aiohttp')}, msgspec {version('msgspec')}"
    )


def as_markdown(table: Table) -> str:
    widths = [max(len(row[i]) for row in (table.columns, *table.rows)) for i in range(len(table.columns))]

    def line(cells: Row) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    ruler = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    body = "\n".join([line(table.columns), ruler, *(line(row) for row in table.rows)])
    return f"## {table.title}\n\n{body}\n" + (f"\n{table.note}\n" if table.note else "")


def write_page(path: Path, tables: Sequence[Table], command: str) -> None:
    head = f"""# Benchmarks

Written by `{command}`; run it again to compare on your machine. Figures of different runs on shared machines
differ by a third; compare ratios inside one run.

- machine: {machine()}
- date: {time.strftime("%Y-%m-%d", time.gmtime())}

"""
    path.write_text(head + "\n".join(as_markdown(table) for table in tables))


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
