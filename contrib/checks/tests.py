# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m contrib.checks.tests``: every test, in the order of what it costs, and one line that counts them all.

Three processes run unit tests and those of hosts, which wait a good part of their time, two those of micro-VMs. Unit
tests are dealt out one by one; of hosts a module's tests, which share a host, stay in one process, and so do all
clusters. Micro-VMs are dealt out by what boots together. The longest begin first.

Results are counted from the lines that `progress` writes, not from what pytest says at its end: whatever kills a
runner, or all of pytest, costs the test that it was running; the tests that have no result yet are run again. A pytest
in which nothing ends for `SILENT_S` is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from contrib.checks import leftovers
from contrib.checks.progress import RESULTS
from contrib.lab.kernel_calls import die_with_parent
from contrib.lab.microvm import boots

TOP = Path(__file__).resolve().parents[2]
ARGV = [sys.executable, "-m", "pytest", "-q", "--no-header", "-o", "console_output_style=classic"]
ARGV += ["-p", "contrib.checks.progress"]
# pytest's words, in its order
WORDS = ("failed", "passed", "skipped", "xfailed", "error")
BAD = ("failed", "error")
# longer than the longest time-out of a single test (tests/lab: 300 s), with the boots before it
SILENT_S = 900.0
# until the first test
START_S = 600.0
ROUNDS = 3
# for fixtures, once a run was interrupted
ENDING_S = 60.0
INTERRUPTED = 130
SLOWEST = 12


# in the order in which `tests.groups` deals them
GROUPS = ("--dist", "loadgroup", "--no-loadscope-reorder")


@dataclass(frozen=True)
class Phase:
    options: tuple[str, ...]
    folders: tuple[str, ...]
    # what pytest names tests relative to
    top: Path = TOP


PHASES = {
    "unit": Phase(("-n", "3"), ("tests/unit", "tests/checks")),
    "hosts": Phase(("-n", "3", *GROUPS), ("tests/hosts",)),
    "lab": Phase(("-n", "2", *GROUPS), ("tests/lab",)),
}


@dataclass
class Results:
    """What became of each test of a phase."""

    outcomes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    collected: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)

    def take(self, line: str) -> None:
        event = json.loads(line)
        self.collected.update(event.get("collected", ()))
        if "started" in event:
            self.running.add(event["started"])
        if "ended" in event:
            self.running.discard(event["ended"])
            self.outcomes[event["ended"]] = event["outcome"]
            self.seconds[event["ended"]] = event["seconds"]

    def bury(self) -> list[str]:
        """pytest has ended: what it was running has failed. Returns the tests that never began."""
        for test in self.running:
            print(f"FAILED {test}: its process ended, or was killed, while it ran", flush=True)
            self.outcomes[test] = "failed"
        self.running.clear()
        return sorted(self.collected - self.outcomes.keys())


class Written:
    """The lines of a file that another process still writes to, each once it is whole."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._begun = ""

    def lines(self) -> list[str]:
        """Those that were ended since the last call."""
        *whole, self._begun = (self._begun + self._file.read()).split("\n")
        return whole


def main(arguments: list[str]) -> int:
    unknown = [name for name in arguments if name not in PHASES]
    if unknown:
        print(f"no such tests: {' '.join(unknown)}; there are {' '.join(PHASES)}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(INTERRUPTED))
    began = time.monotonic()
    run = str(uuid.uuid4())
    before = leftovers.seen(run)
    phases: dict[str, tuple[float, Results]] = {}
    with tempfile.TemporaryDirectory(prefix="vdsm-tests-") as folder:
        environment = {**os.environ, leftovers.MARK: run, boots.RECORD: str(Path(folder, "boots"))}
        for name in arguments or PHASES:
            started = time.monotonic()
            print(f"== {name} tests", flush=True)
            results = run_phase(PHASES[name], Path(folder, name), environment)
            phases[name] = (time.monotonic() - started, results)
            print(f"== {name} tests: {phases[name][0]:.0f} s", flush=True)
        told = boots.summary(Path(folder, "boots"))
    left = leftovers.left(before, run)
    counts = Counter(outcome for _, results in phases.values() for outcome in results.outcomes.values())
    counts["error"] += bool(left)
    _tell(phases, told, left)
    words = [
        f"{counts[word]} {word}{'s' if word == 'error' and counts[word] > 1 else ''}" for word in WORDS if counts[word]
    ]
    print(f"{', '.join(words) or '1 error'} in {time.monotonic() - began:.2f}s", flush=True)
    return 0 if counts["passed"] and not any(counts[word] for word in BAD) else 1


def run_phase(phase: Phase, results_file: Path, environment: dict[str, str]) -> Results:
    """Run a kind of tests; those whose runner died before they began, again."""
    results = Results()
    selection = phase.folders
    for number in range(ROUNDS):
        argv = [*ARGV, f"--rootdir={phase.top}", *phase.options, *selection]
        code = _pytest(argv, phase.top, results, results_file.with_suffix(f".{number}"), environment)
        waiting = results.bury()
        if not results.outcomes:
            print(f"no test ran: pytest ended with {code}", flush=True)
            results.outcomes[" ".join(phase.folders)] = "error"
        if not waiting:
            break
        print(f"== pytest ended with {code}; {len(waiting)} tests have no result yet", flush=True)
        named = results_file.with_suffix(f".{number}.args")
        named.write_text("".join(f"{test}\n" for test in waiting))
        selection = (f"@{named}",)
    else:
        for test in results.bury():
            results.outcomes[test] = "error"
            print(f"ERROR {test} never began", flush=True)
    return results


def _pytest(argv: list[str], top: Path, results: Results, file: Path, environment: dict[str, str]) -> int:
    """One pytest, in a process group of its own, while its results are taken. Killed when nothing ends any more."""
    file.touch()
    env = {**environment, RESULTS: str(file)}
    with (
        open(file) as opened,
        # a group: its processes can be killed together. It ends with us, however we do
        subprocess.Popen(argv, cwd=top, env=env, process_group=0, preexec_fn=die_with_parent) as pytest,  # noqa: PLW1509
    ):
        written = Written(opened)
        limit = time.monotonic() + START_S
        try:
            while True:
                ended = pytest.poll() is not None
                for line in written.lines():
                    results.take(line)
                    limit = time.monotonic() + SILENT_S
                if ended:
                    return pytest.returncode
                if time.monotonic() > limit:
                    print("nothing has ended for too long: pytest is killed", flush=True)
                    os.killpg(pytest.pid, signal.SIGKILL)
                time.sleep(0.2)
        except BaseException:
            # whatever ends us reaches only our own group: pytest ends its fixtures on Ctrl-C
            os.killpg(pytest.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.wait(ENDING_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pytest.pid, signal.SIGKILL)
            raise


def _tell(phases: dict[str, tuple[float, Results]], told: list[str], left: list[str]) -> None:
    print("== slowest tests", flush=True)
    every = [(seconds, test) for _, results in phases.values() for test, seconds in results.seconds.items()]
    for seconds, test in sorted(every, reverse=True)[:SLOWEST]:
        print(f"{seconds:7.1f} s  {test}")
    bad = [(outcome, test) for _, results in phases.values() for test, outcome in results.outcomes.items()]
    bad = [(outcome, test) for outcome, test in bad if outcome in BAD]
    if bad:
        print("== failed")
        for outcome, test in sorted(bad):
            print(f"{outcome.upper():7} {test}")
    if left:
        print("== left behind")
        print("\n".join(left))
    print("== phases: " + ", ".join(f"{name} {seconds:.0f} s" for name, (seconds, _) in phases.items()))
    print("\n".join(told), end="\n" if told else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
