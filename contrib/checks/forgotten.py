# SPDX-License-Identifier: GPL-2.0-or-later
"""What was declared and then forgotten: no test fails for it, and somebody will believe that it works.

- a setting that no code reads
- an event that is published without a row in the catalogue, or a row whose event nobody publishes
- a hook point said to run that no code runs, or one that runs and is said not to
- a public function, method or class that nothing uses but its own tests

What is unused for a reason stands in unused.txt with that reason; a line there that is no longer needed is told, too.
Pages made from the code (settings, events) are compared in tests/checks.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import vulture

from vdsm import config
from vdsm.api.event_catalogue import CATALOGUE
from vdsm.hooking.points import POINTS

TOP = Path(__file__).resolve().parents[2]
UNUSED = Path(__file__).with_name("unused.txt")
AGENT = ("vdsm", "storage", "network")
SCRIPT_LIBRARY = "vdsm/hooking/scriptlib/"  # a contract with scripts that are not here
# the frameworks call these: asyncio's protocols, loggers, aiohttp, typer's and the agent's own decorators
_DECORATORS = ["@verb*", "@root_verb*", "@*.command*", "@*.callback*", "@app.*", "@hooks_app.*", "@cert_app.*"]
_CALLBACKS = ["pipe_*", "process_exited", "pause_writing", "resume_writing", "connection_*", "data_received", "enqueue"]
_CALLBACKS += ["pytest_*", "on_broken_pipe"]


def main() -> int:
    trees = {path: ast.parse(path.read_text()) for folder in AGENT for path in sorted((TOP / folder).rglob("*.py"))}
    found = [*settings(trees), *events(trees), *hook_points(trees), *unused()]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


def settings(trees: dict[Path, ast.Module]) -> Iterator[str]:
    read = {
        node.attr
        for path, tree in trees.items()
        if path != TOP / "vdsm/config.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    for name in config.Settings.__dataclass_fields__:
        if name not in read:
            yield f"vdsm/config.py: no code reads the setting {name}"
    keys = [key.setting for section in (*config.OURS.values(), *config.FOREIGN.values()) for key in section.values()]
    for name in config.Settings.__dataclass_fields__:
        if name not in keys and name not in ("warnings", "hook_timeouts_s"):
            yield f"vdsm/config.py: no key of a file sets {name}"


def events(trees: dict[Path, ast.Module]) -> Iterator[str]:
    known = {(row.component, row.operation) for row in CATALOGUE}
    seen = set()
    for path, tree in trees.items():
        for call in _calls(tree, "publish"):
            if len(call.args) < 2:
                continue
            names = [argument.value if isinstance(argument, ast.Constant) else None for argument in call.args[:2]]
            place = f"{path.relative_to(TOP)}:{call.lineno}"
            if not all(isinstance(name, str) for name in names):
                yield f"{place}: the first two parts of an event's name must be plain text, so that they can be found"
            elif tuple(names) not in known:
                yield f"{place}: |{names[0]!s}|{names[1]!s}| has no row in vdsm/api/event_catalogue.py"
            seen.add(tuple(names))
    for component, operation in sorted(known - seen):
        yield f"vdsm/api/event_catalogue.py: nobody publishes |{component}|{operation}|"


def hook_points(trees: dict[Path, ast.Module]) -> Iterator[str]:
    """Points are run by name: `run_xml`, `run_json`, `run_empty`, or network's `_run_hook`."""
    run = {
        argument.value
        for tree in trees.values()
        for call in _calls(tree, "run_xml", "run_json", "run_empty", "_run_hook")
        for argument in call.args[:1]
        if isinstance(argument, ast.Constant)
    }
    for name, point in POINTS.items():
        if point.wired and name not in run:
            yield f"vdsm/hooking/points.py: {name} is said to run, and no code runs it"
        if name in run and not point.wired:
            yield f"vdsm/hooking/points.py: {name} is run, and said not to"


def unused() -> Iterator[str]:
    found = {name for name in _unused([*AGENT, "hooks"]) if not name.startswith(("hooks/", SCRIPT_LIBRARY))}
    found |= {name for name in _unused([*AGENT, "hooks", "contrib", "tests"]) if name.startswith("contrib/")}
    excused = _excused()
    for name in sorted(found - set(excused)):
        yield f"{name} is used by nothing but tests: delete it, or say in contrib/checks/unused.txt what it is for"
    for name in sorted(set(excused) - found):
        yield f"contrib/checks/unused.txt: {name} is used, or gone: delete its line"


def _unused(folders: list[str]) -> Iterator[str]:
    finder = vulture.Vulture(ignore_names=_CALLBACKS, ignore_decorators=_DECORATORS)
    finder.scavenge([str(TOP / folder) for folder in folders])
    for item in (*finder.unused_funcs, *finder.unused_methods, *finder.unused_classes, *finder.unused_props):
        path = Path(item.filename)
        yield f"{path.relative_to(TOP) if path.is_absolute() else path}:{item.name}"


def _excused() -> dict[str, str]:
    lines = [line for line in UNUSED.read_text().splitlines() if line and not line.startswith("#")]
    excuses = dict(line.split(None, 1) for line in lines)
    return {name: reason.strip() for name, reason in excuses.items()}


def _calls(tree: ast.Module, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in names:
                yield node


if __name__ == "__main__":
    sys.exit(main())
