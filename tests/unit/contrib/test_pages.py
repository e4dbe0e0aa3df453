# SPDX-License-Identifier: GPL-2.0-or-later
"""Every block of the pages is run by a test, or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from contrib.checks import pages

ALL = [block for page in pages.pages() for block in pages.blocks(page)]


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_says_its_language(block: pages.Block) -> None:
    assert block.language in pages.LANGUAGES


@pytest.mark.parametrize("page", list(pages.pages()), ids=lambda page: str(page.relative_to(pages.TOP)))
def test_no_block_is_overlooked(page: Path) -> None:
    fences = [line for line in page.read_text().splitlines() if line.startswith("```")]
    assert len(fences) == 2 * len(pages.blocks(page))


def test_a_page_s_blocks_are_one_script_and_their_marks_are_found() -> None:
    text = (
        "x\n```sh\none\ntwo\n```\n<!-- shows: a -->\n<!-- shows: b -->\n\n"
        "<!-- not run: why -->\n```sh\nthree\n```\n```text\nfour\n```\n<!-- on: there -->\n```sh\nfive\n```\n"
    )
    first, second, third, fourth = pages._blocks("page", text)
    assert (first.line, first.text, first.shows, first.is_run) == (2, "one\ntwo\n", ("a", "b"), True)
    assert (second.not_run, second.is_run, third.is_run) == ("why", False, False)
    assert (fourth.on, fourth.is_run) == ("there", False)
    assert pages.script([first]).splitlines() == ["set -eu", "echo; echo '@@ line 2'", "one", "two"]


@pytest.mark.parametrize("page", list(pages.pages()), ids=lambda page: str(page.relative_to(pages.TOP)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in pages.links(page):
        assert (page.parent / target).exists(), target


def test_every_page_is_found_from_the_first_one() -> None:
    found = {(pages.TOP / link).resolve() for link in pages.links(pages.TOP / "README.md")}
    assert set((pages.TOP / "docs").glob("*.md")) <= found
