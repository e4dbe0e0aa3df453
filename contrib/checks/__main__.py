# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m contrib.checks lint``: ruff, mypy, floors, sizes, what was forgotten; a failed one shows its output."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
FAKES = sorted(str(path) for path in (TOP / "tests/unit/storage").glob("memory_*.py"))
CHECKS: dict[str, list[str]] = {
    "ruff": [str(BIN / "ruff"), "check", "--quiet", "--no-cache"],
    "mypy": [str(BIN / "mypy"), "--no-error-summary"],
    # what stands in for storage in tests keeps its contracts
    "mypy fakes": [str(BIN / "mypy"), "--no-error-summary", "--cache-dir", ".mypy_cache/fakes", *FAKES],
    "lint-imports": [str(BIN / "lint-imports")],
    "circles": [sys.executable, "-m", "contrib.checks.circles"],
    "namesakes": [sys.executable, "-m", "contrib.checks.namesakes"],
    "ratchet": [sys.executable, "-m", "contrib.checks.ratchet"],
    "forgotten": [sys.executable, "-m", "contrib.checks.forgotten"],
}


def main() -> int:
    if sys.argv[1:] != ["lint"]:
        print(__doc__)
        return 2
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        results = list(pool.map(_run, CHECKS))
    return 0 if all(results) else 1


def _run(name: str) -> bool:
    began = time.monotonic()
    done = subprocess.run(CHECKS[name], cwd=TOP, capture_output=True, text=True, check=False)
    passed = done.returncode == 0
    text = f"{name:14}{'ok' if passed else 'FAILED':8}{time.monotonic() - began:5.1f} s"
    print(text if passed else f"{text}\n{done.stdout}{done.stderr}", flush=True)
    return passed


if __name__ == "__main__":
    sys.exit(main())
