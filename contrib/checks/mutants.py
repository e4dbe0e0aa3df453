# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m contrib.checks.mutants AREA``: do the unit tests of an area see when its code is broken?

mutmut changes one thing at a time in a copy of what is committed (an operator, a constant, an argument) and runs the
unit tests that reach it: a change that no test sees is a survivor. Where all changes of the area would take over
`BUDGET_S`, a sample is drawn, the same one for the same seed. What never ends is killed and counts as seen.

Broken code of root's runs here, as root: it has process ids and mounts of its own, and whatever it starts ends with it.

Survivors are written to .cache/mutants/AREA.txt, each with its difference. docs/testing.md says how to read it.
"""

from __future__ import annotations

import argparse
import configparser
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contrib.checks.apart import TRAMPOLINE

TOP = Path(__file__).resolve().parents[2]
CACHE = TOP / ".cache"
TOOL = "mutmut==3.8.1"
PACKAGES = ("vdsm", "storage", "network")
# what tests read beside the packages
ALSO = ("contrib", "hooks", "packaging", "docs", "stubs", "README.md", "Makefile", "ruff.toml")
BUDGET_S = 20 * 60.0
SAMPLE = 200
# mutmut is found by these alone, not by what tests start; its import is replaced before anything reads it. It would
# take each child that ends for a worker, also one that a test left behind
CLI = """
import os, sys
forked, fork, wait = set(), os.fork, os.wait
def fork_worker():
    pid = fork()
    forked.add(pid)
    return pid
def wait_for_worker():
    while (ended := wait())[0] not in forked:
        pass
    return ended
os.fork, os.wait = fork_worker, wait_for_worker
sys.path.insert(0, sys.argv.pop(1))
from mutmut.mutation import trampoline_templates
trampoline_templates.trampoline_imports = sys.argv.pop(1)
from mutmut.__main__ import cli
cli()
"""
SHOW = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from mutmut.__main__ import show
for name in sys.argv[1:]:
    show.callback(name)
"""
PLUGIN = "contrib/checks/apart.py"
PLUGINS = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "contrib.checks.apart")
# the shell is the first process, which gets the children of all that end
_FIRST = ("sh", "-c", '"$@"; exit $?', "sh")
ALONE = ("unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", *_FIRST)
SEEN = ("killed", "timeout", "segfault", "suspicious", "caught by type check")


@dataclass(frozen=True)
class Area:
    source: tuple[str, ...]
    tests: tuple[str, ...]
    # runs under the system's Python
    but_not: tuple[str, ...] = ()


AREAS = {
    "virt": Area(("vdsm/virt/*",), ("tests/unit/virt",)),
    "storage": Area(("storage/*",), ("tests/unit/storage",)),
    "network": Area(("network/*",), ("tests/unit/network",)),
    "hooking": Area(("vdsm/hooking/*",), ("tests/unit/hooking",), ("vdsm/hooking/scriptlib/*",)),
    "rpc": Area(("vdsm/rpc/*",), ("tests/unit/rpc",)),
    "host": Area(("vdsm/host/*",), ("tests/unit/host",)),
    "root": Area(("vdsm/root/*",), ("tests/unit/root", "tests/unit/hooking/test_tools.py")),
    "common": Area(("vdsm/common/*",), ("tests/unit/common",)),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description="Mutation testing of one area's unit tests.")
    parser.add_argument("area", choices=AREAS)
    parser.add_argument("--commit", default="HEAD", help="what is tested (default: HEAD)")
    parser.add_argument("--sample", type=int, help=f"how many (all, or {SAMPLE} where all take over 20 minutes)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    area = AREAS[chosen.area]
    copy = _copy(chosen.area, chosen.commit)
    _prepare(copy, area)
    every = sorted(_results(copy))
    number = chosen.sample or (SAMPLE if _estimate_s(copy, every) / chosen.processes > BUDGET_S else len(every))
    names = sorted(random.Random(chosen.seed).sample(every, min(number, len(every))))
    print(f"{chosen.area}: {len(names)} of {len(every)} changes, seed {chosen.seed}", flush=True)
    # one that no test reaches is a survivor, and mutmut can't be asked to run it
    reached = sorted(_reached(copy, names))
    if reached:
        _mutmut(copy, "run", "--max-children", str(chosen.processes), *reached)
    results = _results(copy)
    outcomes = {name: results[name] if name in reached else "no tests" for name in names}
    _report(chosen.area, copy, outcomes, chosen.commit)
    return 0


def _copy(area: str, commit: str) -> Path:
    """A fresh copy of what is committed: the checkout itself is never changed."""
    copy = CACHE / "mutants" / area
    shutil.rmtree(copy, ignore_errors=True)
    (copy / "mutants").mkdir(parents=True)  # where it is missing, Python does not look again
    archive = subprocess.run(["git", "archive", commit], cwd=TOP, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-C", str(copy), "-x"], input=archive, check=True)
    # an older commit has another one, or none
    shutil.copy(TOP / PLUGIN, copy / PLUGIN)
    # tests that start the agent's commands look for the environment in their checkout
    (copy / ".venv").symlink_to(TOP / ".venv")
    return copy


def _configure(copy: Path, area: Area, broken: list[str]) -> None:
    settings = configparser.ConfigParser()
    settings.read(copy / "setup.cfg")
    options = ["-q", *PLUGINS]
    settings["mutmut"] = {
        "source_paths": _lines(PACKAGES),
        "only_mutate": _lines(area.source),
        "do_not_mutate": _lines((*area.but_not, "*/__main__.py")),
        "also_copy": _lines(ALSO),
        "pytest_add_cli_args": _lines([*options, *(f"--deselect={test}" for test in broken)]),
        "pytest_add_cli_args_test_selection": _lines(area.tests),
        "use_git_change_detection": "false",
        "track_dependencies": "false",
    }
    with open(copy / "setup.cfg", "w") as file:
        settings.write(file)


def _lines(words: tuple[str, ...] | list[str]) -> str:
    return "\n" + "\n".join(words)


def _prepare(copy: Path, area: Area) -> None:
    """Make the changes, and find out which test reaches which function."""
    broken: set[str] = set()
    while True:
        _configure(copy, area, sorted(broken))
        # no name matches: nothing is tried yet
        told = _mutmut(copy, "run", "nothing.*", quiet=True)
        if "nothing matches" in told:
            break
        # it stops at the first one; later, a test of time, which does not like to be watched
        if not (failed := set(_failed(told)) - broken):
            sys.exit(f"mutmut can't run the tests:\n{told[-4000:]}")
        broken |= failed if broken else failed | set(_failing(copy, area))
    if broken:
        print(f"{len(broken)} tests can't run like this and are left out: {', '.join(sorted(broken))}", flush=True)


def _failed(told: str) -> list[str]:
    """Without parameters, which may hold anything."""
    return sorted(set(re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", told, re.MULTILINE)))


def _failing(copy: Path, area: Area) -> list[str]:
    """Tests that fail in the copy although nothing is changed: those that look at code, or leave the process."""
    argv = [*_alone(), sys.executable, "-m", "pytest", "-q", *PLUGINS, "--tb=no", *area.tests]
    done = subprocess.run(
        argv, cwd=copy / "mutants", env=_environment(copy), capture_output=True, text=True, check=False
    )
    return _failed(done.stdout)


def _tool() -> Path:
    """mutmut in a folder of its own: only this needs it."""
    folder = CACHE / TOOL.replace("==", "-")
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target"]
        subprocess.run([*pip, f"{folder}.new", TOOL], check=True)
        Path(f"{folder}.new").rename(folder)
    return folder


def _environment(copy: Path) -> dict[str, str]:
    # what tests start is the changed code, too; it is long, and compiled once
    ours = {"PYTHONPATH": str(copy / "mutants"), "PYTHONPYCACHEPREFIX": str(copy / "compiled")}
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | ours


def _mutmut(copy: Path, *words: str, quiet: bool = False) -> str:
    return _mutmut_code(copy, CLI, TRAMPOLINE, *words, quiet=quiet)


def _mutmut_code(copy: Path, code: str, *words: str, quiet: bool = False) -> str:
    done = subprocess.run(
        [*_alone(), sys.executable, "-c", code, str(_tool()), *words],
        cwd=copy,
        env=_environment(copy),
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0 and not quiet:
        sys.exit(f"mutmut {' '.join(words[-3:])} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def _alone() -> Sequence[str]:
    return ALONE if os.geteuid() == 0 else ()


def _results(copy: Path) -> dict[str, str]:
    """Every change that could be made, and what became of it."""
    listed = _mutmut(copy, "results", "--all", "true")
    return dict(re.findall(r"^\s+(\S+): (.+)$", listed, re.MULTILINE))


def _statistics(copy: Path) -> tuple[dict[str, list[str]], dict[str, float]]:
    statistics = json.loads((copy / "mutants/mutmut-stats.json").read_text())
    return statistics["tests_by_mangled_function_name"], statistics["duration_by_test"]


def _function(name: str) -> str:
    return name.rpartition("__mutmut_")[0]


def _reached(copy: Path, names: list[str]) -> set[str]:
    tests, _ = _statistics(copy)
    return {name for name in names if tests.get(_function(name))}


def _estimate_s(copy: Path, names: list[str]) -> float:
    """If every change survived: a survivor's tests run to their end."""
    tests, seconds = _statistics(copy)
    return sum(seconds.get(test, 0.0) for name in names for test in tests.get(_function(name), ()))


def _report(name: str, copy: Path, outcomes: dict[str, str], commit: str) -> None:
    counts = Counter(outcomes.values())
    seen = sum(counts[outcome] for outcome in SEEN)
    score = 100 * seen / max(len(outcomes), 1)
    told = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
    head = f"{name} at {commit}: {score:.0f} % of {len(outcomes)} changes are seen ({told})"
    survivors = sorted(mutant for mutant, outcome in outcomes.items() if outcome not in SEEN)
    file = CACHE / "mutants" / f"{name}.txt"
    print(head, flush=True)
    # one process for all of them: mutmut takes seconds to start
    shown = _mutmut_code(copy, SHOW, *survivors)
    file.write_text(f"{head}\n\n{shown}")
    print(f"survivors: {file}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
