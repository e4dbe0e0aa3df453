# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzz what comes from outside, guided by coverage: ``make fuzz``, or ``python -m contrib.fuzz [TARGET...]``.

The seconds are shared out among the targets, which run one after the other. What they learn stays in the corpus folder
and is where the next campaign begins; findings lie in TARGET/crashes below it, each with its traceback.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from contrib.fuzz import keep
from contrib.fuzz.target import KEPT, TARGETS, load

TOP = Path(__file__).resolve().parents[2]
CORPUS = TOP / ".cache" / "fuzz"
# an instrumented start, the last input and the end
GRACE_S = 120
_PULSE = re.compile(r"#\d+\t\w+\s+cov: (?P<cov>\d+) .*?corp: (?P<corpus>\d+)/")
_STAT = re.compile(r"stat::(\w+):\s+(\d+)")


@dataclass(frozen=True)
class Report:
    executions: int
    per_second: int
    coverage: int
    corpus: int
    crashes: list[Path]

    def line(self, target: str) -> str:
        return (
            f"{target:12}{self.executions:>10} executions{self.per_second:>8}/s{self.coverage:>8} coverage"
            f"{self.corpus:>7} inputs{len(self.crashes):>4} crashes"
        )


def main() -> int:
    options = _options()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: make fuzz brings it, for campaigns only", file=sys.stderr)
        return 2
    worst = 0
    for target in options.targets:
        report = fuzz(target, options.seconds // len(options.targets), options.corpus / target)
        print(report.line(target), flush=True)
        for crash in report.crashes:
            print(f"    {crash}", flush=True)
        worst = worst or int(bool(report.crashes))
        if options.keep:
            corpus = [file.read_bytes() for file in (options.corpus / target / "corpus").iterdir()]
            kept = keep.keep(load(target), corpus, KEPT / target)
            print(f"    {kept} inputs are kept in {(KEPT / target).relative_to(TOP)}", flush=True)
    return worst


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m contrib.fuzz", description="Coverage-guided fuzzing.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of: {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=600, help="for all of them together (default: 600)")
    parser.add_argument("--corpus", type=Path, default=CORPUS, metavar="DIR", help="default: .cache/fuzz")
    parser.add_argument("--keep", action="store_true", help="write a small corpus for the unit test: tests/fuzz_corpus")
    options = parser.parse_args()
    options.targets = options.targets or list(TARGETS)
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if options.seconds < len(options.targets):
        parser.error("each target needs a second")
    return options


def fuzz(target: str, seconds: int, folder: Path) -> Report:
    """One target for so long; a crash that is there from an earlier campaign is tried again, and counts if it stays."""
    crashes = folder / "crashes"
    for name in ("corpus", "crashes"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _take_back(crashes, folder / "corpus")
    for file in (KEPT / target).glob("*"):
        (folder / "corpus" / file.name).write_bytes(file.read_bytes())
    argv = [sys.executable, "-m", "contrib.fuzz.campaign", target, str(folder), f"-max_total_time={seconds}"]
    log = folder / "log"
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                argv, cwd=TOP, stdout=output, stderr=output, timeout=seconds + GRACE_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = 1
    found = sorted(file for file in crashes.iterdir() if file.suffix != ".txt")
    if code != 0 and not found:  # it did not come to fuzzing, or died without an input
        found = [log]
    return _report(log.read_text(errors="replace"), found)


def _take_back(crashes: Path, corpus: Path) -> None:
    for file in crashes.iterdir():
        if file.suffix == ".txt":
            file.unlink()
        else:
            file.replace(corpus / file.name)


def _report(log: str, crashes: list[Path]) -> Report:
    pulses = list(_PULSE.finditer(log))
    stats = {name: int(value) for name, value in _STAT.findall(log)}
    return Report(
        executions=stats.get("number_of_executed_units", 0),
        per_second=stats.get("average_exec_per_sec", 0),
        coverage=int(pulses[-1]["cov"]) if pulses else 0,
        corpus=int(pulses[-1]["corpus"]) if pulses else 0,
        crashes=crashes,
    )


if __name__ == "__main__":
    sys.exit(main())
