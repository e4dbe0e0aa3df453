# SPDX-License-Identifier: GPL-2.0-or-later
"""Command blocks of the pages, so that a page can't promise what does not work. Pure.

A block between fences says its language. One of ``sh`` is run by tests/hosts/test_docs.py, page by page, in one shell
on a private host. Around it comments that readers do not see:

    <!-- not run: why, and what tests it instead -->     before the block
    <!-- on: where -->                                    before it: tests/lab runs it there, not test_docs.py
    <!-- shows: text -->                                  after it, any number: in what the block prints
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
LANGUAGES = frozenset({"sh", "text", "python", "json", "ini", "toml", "xml"})
_FENCE = re.compile(r"```(.*)\n((?:.*\n)*?)```\n", re.M)
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->\n\Z")
_ON = re.compile(r"<!-- on: (.+) -->\n\Z")
_SHOWS = re.compile(r"\s*<!-- shows: (.+) -->")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    not_run: str
    on: str
    shows: tuple[str, ...]

    @property
    def is_run(self) -> bool:
        return self.language == "sh" and not self.not_run and not self.on


def pages() -> Iterator[Path]:
    yield TOP / "README.md"
    yield from sorted((TOP / "docs").glob("*.md"))
    yield from sorted((TOP / "hooks").glob("*/README.md"))
    yield TOP / "packaging/README.md"


def blocks(page: Path) -> list[Block]:
    return list(_blocks(str(page.relative_to(TOP)), page.read_text()))


def _blocks(name: str, text: str) -> Iterator[Block]:
    for fence in _FENCE.finditer(text):
        reason, on = _NOT_RUN.search(text[: fence.start()]), _ON.search(text[: fence.start()])
        shows, place = [], fence.end()
        while found := _SHOWS.match(text, place):
            shows.append(found[1])
            place = found.end()
        line = text.count("\n", 0, fence.start()) + 1
        why, where = reason[1] if reason else "", on[1] if on else ""
        yield Block(name, line, fence[1].strip(), fence[2], why, where, tuple(shows))


def script(found: list[Block]) -> str:
    """One shell for all blocks of a page; a command that fails ends it. What a block prints is between marks."""
    parts = ["set -eu"]
    for block in found:
        parts += [f"echo; echo '{mark(block)}'", block.text]
    return "\n".join(parts)


def mark(block: Block) -> str:
    return f"@@ line {block.line}"


def links(page: Path) -> list[str]:
    """Files that a page links to, without the place in them."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [link.partition("#")[0] for link in found if "://" not in link and link.partition("#")[0]]
