# SPDX-License-Identifier: GPL-2.0-or-later
"""How the demo tells its story: numbered steps with their time, details below; plain text when nobody watches.

Everything goes through one console, so the same run can also be saved as a picture.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 100
INDENT = "      "


def console(*, record: bool = False) -> Console:
    """Colours on a terminal; plain whole lines elsewhere."""
    probe = Console()
    width = min(probe.width, WIDTH) if probe.is_terminal else WIDTH
    return Console(width=width, highlight=False, record=record, force_terminal=True if record else None)


@dataclass
class Story:
    screen: Console
    began: float = field(default_factory=time.monotonic)
    steps: list[tuple[str, float]] = field(default_factory=list)

    def title(self, text: str) -> None:
        self.screen.print(Text(text, style="bold"))
        self.screen.print()

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A step: its line is written at once, its time when it is done."""
        number = len(self.steps) + 1
        started = time.monotonic()
        self.screen.print(Text.assemble((f"{number:3}. ", "bold cyan"), (what, "bold")))
        try:
            yield
        except BaseException:
            self._end("interrupted or failed", "bold red", started)
            raise
        self.steps.append((what, time.monotonic() - started))
        self._end("done", "green", started)

    def say(self, text: str, style: str = "") -> None:
        for line in text.splitlines() or [""]:
            self._line(Text(INDENT + line, style=style))

    def call(self, method: str, detail: str = "") -> None:
        """A call of the API and, in short, what came of it."""
        self._line(Text.assemble(INDENT, ("-> ", "dim"), (method, "cyan"), ("  " + detail) if detail else ""))

    def quote(self, text: str) -> None:
        """Words of somebody else: the guest's console, a script."""
        for line in text.splitlines():
            self._line(Text.assemble(INDENT, ("| ", "dim"), (line, "yellow")))

    def diff(self, lines: Iterator[str] | list[str]) -> None:
        styles = {"+": "green", "-": "red", "@": "dim"}
        for line in lines:
            self.say(line.rstrip("\n"), styles.get(line[:1], "dim"))

    def summary(self, text: str) -> None:
        total = time.monotonic() - self.began
        self.screen.print()
        self.screen.print(Text(f"{text}  {len(self.steps)} steps, {total:.1f} s", style="bold green"))

    def _line(self, text: Text) -> None:
        """Cut to a terminal's width; whole in a file."""
        if self.screen.is_terminal:
            self.screen.print(text, no_wrap=True, overflow="ellipsis")
        else:
            self.screen.print(text, soft_wrap=True)

    def save_picture(self, path: Path, title: str) -> None:
        self.screen.save_svg(str(path), title=title)

    def _end(self, word: str, style: str, started: float) -> None:
        self.screen.print(Text.assemble(INDENT, (word, style), (f"  {time.monotonic() - started:.1f} s", "dim")))
