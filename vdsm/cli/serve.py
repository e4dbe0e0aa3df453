# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the agent in this process. It refuses any user but 36: everything that it writes must belong to it."""

from __future__ import annotations

import os
import sys

from vdsm.cli.exits import Exit

AGENT_UID = 36
HELP = """\
Usage: vdsm serve [--as-root]

Run the agent until SIGTERM. It runs as user 36 (vdsm) and needs the root helper (vdsm-root) beside it.

  --as-root  run as whatever user this is; for debugging only
"""


def serve(arguments: list[str]) -> None:
    if "--help" in arguments:
        print(HELP, end="")
        return
    unknown = [word for word in arguments if word != "--as-root"]
    if unknown:
        print(f"vdsm serve: unknown argument {unknown[0]!r}; it knows --as-root and --help", file=sys.stderr)
        sys.exit(Exit.USAGE)
    if os.geteuid() != AGENT_UID and "--as-root" not in arguments:
        print(
            f"vdsm serve: runs as user {AGENT_UID} (vdsm), not as user {os.geteuid()};"
            " start it by: systemctl start vdsm",
            file=sys.stderr,
        )
        sys.exit(Exit.USAGE)
    from vdsm.agent import main

    main()
