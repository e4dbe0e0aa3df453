# SPDX-License-Identifier: GPL-2.0-or-later
"""apt.sh waits for the locks of apt that another process holds, whichever they are, and not for ever."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from contrib.lab import kernels

CHECKOUT = Path(__file__).resolve().parents[3]
LOCKED = {
    "lists": "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)",
    "frontend": "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend)",
    "directory": "E: Unable to lock directory /var/lib/apt/lists/",
    "dpkg": "dpkg: error: dpkg frontend lock was locked by another process with pid 1",
}
# stands for apt: fails with the given words as often as a file says, and counts its calls
PROGRAM = """
echo call >> calls
[ "$(wc -l < calls)" -gt "$(cat failures)" ] && echo done && exit 0
printf '%s\\n' "$0" >&2
exit 100
"""


def _run(folder: Path, said: str, *, failures: int, wait_s: int = 30) -> subprocess.CompletedProcess[str]:
    (folder / "failures").write_text(str(failures))
    argv = [*kernels.APT, "sh", "-c", PROGRAM, said]
    env = {**os.environ, "APT_WAIT_S": str(wait_s)}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60)


def _calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


@pytest.mark.parametrize("lock", LOCKED)
def test_a_held_lock_is_waited_for(tmp_path: Path, lock: str) -> None:
    done = _run(tmp_path, LOCKED[lock], failures=1)
    assert (done.returncode, done.stdout, _calls(tmp_path)) == (0, "done\n", 2)


def test_a_lock_that_stays_held_ends_the_wait(tmp_path: Path) -> None:
    done = _run(tmp_path, LOCKED["lists"], failures=99, wait_s=0)
    assert done.returncode == 100
    assert "held apt's lock for 0 s" in done.stderr
    assert LOCKED["lists"] in done.stderr


def test_any_other_failure_is_passed_on_at_once(tmp_path: Path) -> None:
    done = _run(tmp_path, "E: Unable to locate package nothing", failures=1)
    assert (done.returncode, _calls(tmp_path)) == (100, 1)
    assert done.stderr == "E: Unable to locate package nothing\n"


def test_nobody_calls_apt_without_waiting() -> None:
    bare = []
    for path in [*CHECKOUT.glob("contrib/**/*.py"), *CHECKOUT.glob("contrib/**/*.sh")]:
        for line in path.read_text().splitlines():
            calls = re.search(r"(\"apt-get\", \"|apt-get -q|dpkg --configure)", line)
            if calls and not re.search(r"APT, |apt\.sh", line) and path.name not in ("apt.sh", "bare_root.py"):
                bare.append(f"{path.name}: {line.strip()}")
    assert bare == []
