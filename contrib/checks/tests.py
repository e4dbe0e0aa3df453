# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m contrib.checks.tests``: every test, in the order of what it costs, and one line that counts them all.

Two processes run each kind. Unit tests are dealt out one by one; of hosts a module's tests, which share a host, stay in
one process, and so do all clusters. Micro-VMs are dealt out by what boots together.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PHASES = {
    "unit": ["-n", "2", "tests/unit", "tests/checks"],
    "hosts": ["-n", "2", "--dist", "loadgroup", "tests/hosts"],
    "lab": ["-n", "2", "--dist", "loadgroup", "tests/lab"],
}
# pytest's words, in its order; a phase in which nothing was found is an error
WORDS = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "error")
NOTHING_COLLECTED = 5


def main(arguments: list[str]) -> int:
    unknown = [name for name in arguments if name not in PHASES]
    if unknown:
        print(f"no such tests: {' '.join(unknown)}; there are {' '.join(PHASES)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    counts: Counter[str] = Counter()
    worst = 0
    for name in arguments or PHASES:
        started = time.monotonic()
        print(f"== {name} tests", flush=True)
        code, found = _run(PHASES[name])
        print(f"== {name} tests: {time.monotonic() - started:.0f} s", flush=True)
        counts += found
        worst = worst or code
    words = [
        f"{counts[word]} {word}{'s' if word == 'error' and counts[word] > 1 else ''}" for word in WORDS if counts[word]
    ]
    print(f"{', '.join(words)} in {time.monotonic() - began:.2f}s", flush=True)
    return worst


def _run(arguments: list[str]) -> tuple[int, Counter[str]]:
    """pytest's exit code and the counts of its last line; its output is passed on as it comes."""
    argv = [sys.executable, "-m", "pytest", "-q", "--durations=5", "--durations-min=5", *arguments]
    last = ""
    with subprocess.Popen(argv, cwd=TOP, stdout=subprocess.PIPE, text=True, errors="replace") as pytest:
        assert pytest.stdout is not None
        for line in pytest.stdout:
            print(line, end="", flush=True)
            if re.search(r"\d+ (passed|failed|skipped|errors?)\b.* in [\d.]+s", line):
                last = line
    found = Counter(
        {_singular(word): int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", last.split(" in ")[0])}
    )
    if pytest.returncode not in (0, 1) or not last:
        found["error"] += 1
    return pytest.returncode, Counter({word: found[word] for word in WORDS})


def _singular(word: str) -> str:
    return "error" if word == "errors" else word


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
