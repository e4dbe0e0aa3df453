# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the command begins.

``serve`` goes past the libraries that only people's commands need: what the agent imports, it carries in
memory for months.
"""

from __future__ import annotations

import sys


def run() -> None:
    if sys.argv[1:2] == ["serve"]:
        from vdsm.cli.serve import serve

        serve(sys.argv[2:])
        return
    from vdsm.cli.app import app
    from vdsm.cli.exits import ending_quietly

    with ending_quietly():
        app(prog_name="vdsm")
