# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m contrib.lab``: list hosts, remove them, or have one with a shell in it."""

from __future__ import annotations

import argparse
import subprocess
import sys

from contrib.lab import registry


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m contrib.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="hosts that exist")
    down = commands.add_parser("down", help="remove hosts whose starter is gone")
    down.add_argument("--all", action="store_true", help="remove every host")
    shell = commands.add_parser("shell", help="start a host without agent and run a shell (or a command) in it")
    shell.add_argument("argv", nargs="*", default=["bash"])
    options = parser.parse_args()
    if options.command == "list":
        for record in registry.records():
            state = "up" if record.keeper_lives() else "left behind"
            print(f"{record.name:20} {state:12} init {record.host}")
    elif options.command == "down":
        for name in registry.sweep(also_living=options.all):
            print(f"removed {name}")
    else:
        from contrib.lab.host import PrivateHost

        with PrivateHost() as host:
            return subprocess.run(host.command(options.argv), check=False).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
