# SPDX-License-Identifier: GPL-2.0-or-later
"""What the pages tell to type works as it stands there: each page in one shell, on a host as `./lab up` makes it."""

from __future__ import annotations

import pytest

from contrib.checks import pages
from contrib.lab.host import PrivateHost

RUN = {str(page.relative_to(pages.TOP)): [b for b in pages.blocks(page) if b.is_run] for page in pages.pages()}


@pytest.fixture(scope="module")
def prepared(host: PrivateHost) -> PrivateHost:
    host.start_agent()
    host.run(["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "far1"])
    return host


@pytest.mark.timeout(300)
@pytest.mark.cost(10)
@pytest.mark.parametrize("page", [page for page, blocks in RUN.items() if blocks])
def test_the_commands_of_a_page_do_what_it_says(prepared: PrivateHost, page: str) -> None:
    shell = ["sh", "-c", "cd /usr/lib/vdsm && exec bash -s"]
    done = prepared.run(shell, stdin=pages.script(RUN[page]).encode(), timeout_s=280, check=False)
    output = done.stdout.decode()
    told = f"{output}\n{done.stderr.decode()}"
    assert done.returncode == 0, told
    for block in RUN[page]:
        printed = output.partition(f"{pages.mark(block)}\n")[2].partition("\n@@ line ")[0]
        for text in block.shows:
            assert text in printed, f"line {block.line} of {page} does not show {text!r}\n{told}"
