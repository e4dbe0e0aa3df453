# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the parts, each on a private host of its own, print their tables, keep them in docs/benchmarks.md.

    python -m contrib.benchmarks [PART ...]

A part is a module with ``run(host) -> list[Table]``. With parts named, their tables are printed and the page stays.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from contrib.benchmarks import report, rpc
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PYTHON

PARTS = (
    "rpc",
    "wire",
    "million",
    "fairness",
    "footprint",
    "storage_io",
    "storage_flows",
    "vms",
    "many_vms",
    "vm_statistics",
    "recovery",
)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
COMMAND = "make bench"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m contrib.benchmarks", description="Measure the agent.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of: {', '.join(PARTS)} (default: all)")
    chosen = parser.parse_args().parts or PARTS
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        sys.exit("benchmarks need root: they run on a private host")
    tables: list[report.Table] = []
    for name in chosen:
        for table in _run(name):
            print(report.as_markdown(table), flush=True)
            tables.append(table)
    if tuple(chosen) == PARTS:
        report.write_page(PAGE, tables, COMMAND)
        print(f"written to {PAGE}")
    print(report.machine())


def _run(name: str) -> list[report.Table]:
    with PrivateHost(settings=rpc.SETTINGS) as host:
        # an engine's port is open only on a host that has certificates
        host.run([PYTHON, "-m", "vdsm.cli", "cert", "init", "--name", "bench"])
        host.start_agent()
        tables: list[report.Table] = importlib.import_module(f"contrib.benchmarks.{name}").run(host)
        return tables


if __name__ == "__main__":
    main()
