# SPDX-License-Identifier: GPL-2.0-or-later
"""Which modules a Python script imports that its interpreter will not find.

A script that fails at an import fails for every VM, also for those that never asked for what it does. Nothing of the
script is run: its text is parsed, the interpreter is asked once for its search path, and files are looked for there.
Only a Python of the system is asked: the interpreter line is the script's word, and lint runs as root.

An import inside ``try`` may fail by intention and is not looked at. One inside a function fails only when the function
is called, so it is told as less than fatal.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from vdsm.common.commands import PATH
from vdsm.hooking.environment import SCRIPT_LIBRARY

_SYSTEM_PYTHON = re.compile(r"/(usr/|usr/local/)?bin/python3?(\.[0-9]+)?")
_ASK = "import json, sys; print(json.dumps([sys.path, sorted(sys.builtin_module_names)]))"
_ASK_S = 10.0
_SUFFIXES = (".py", ".pyc", ".so")


@dataclass(frozen=True)
class Import:
    module: str  # dotted
    line: int
    at_start: bool  # as soon as the script runs


@dataclass(frozen=True)
class SearchPath:
    folders: tuple[str, ...]
    built_in: frozenset[str]


def missing(tree: ast.Module, interpreter: str, folder: str) -> list[Import]:
    """Imports of the script ``tree`` in ``folder`` that ``interpreter`` (an absolute path) does not find.

    Empty where the interpreter is none of the system's or does not answer: then nothing is known.
    """
    if not _SYSTEM_PYTHON.fullmatch(interpreter):
        return []
    known = _search_path(interpreter)
    if known is None:
        return []
    folders = (folder, *known.folders)
    return [found for found in _imports(tree) if not _exists(found.module, SearchPath(folders, known.built_in))]


@functools.cache
def _search_path(interpreter: str) -> SearchPath | None:
    environment = {"PATH": PATH, "PYTHONPATH": SCRIPT_LIBRARY, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [interpreter, "-c", _ASK],
            capture_output=True,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=_ASK_S,
            check=True,
        )
        folders, built_in = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return SearchPath(tuple(part for part in folders if part), frozenset(built_in))


def _imports(tree: ast.Module) -> Iterator[Import]:
    waiting: list[tuple[ast.AST, bool]] = [(tree, True)]
    while waiting:
        node, at_start = waiting.pop()
        if isinstance(node, ast.Try):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_start)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield Import(node.module, node.lineno, at_start)
            if _holds_only_modules(node.module):
                for alias in node.names:
                    if alias.name != "*":
                        yield Import(f"{node.module}.{alias.name}", node.lineno, at_start)
        inside = at_start and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def _holds_only_modules(package: str) -> bool:
    """``from vdsm import utils`` names a module; ``from os import path`` may name anything."""
    place = os.path.join(SCRIPT_LIBRARY, *package.split("."))
    return os.path.isdir(place) or package in ("vdsm.common", "vdsm.network", "vdsm.storage")


def _exists(module: str, search: SearchPath) -> bool:
    first, *rest = module.split(".")
    if first in search.built_in:
        return True
    folders = list(search.folders)
    for name in [first, *rest]:
        if not any(_is_module(folder, name) for folder in folders):
            return False
        folders = [os.path.join(folder, name) for folder in folders if os.path.isdir(os.path.join(folder, name))]
        if not folders:
            return True  # a module of one file: what it holds, only running it shows
    return True


def _is_module(folder: str, name: str) -> bool:
    if os.path.isdir(os.path.join(folder, name)):
        return True
    if any(os.path.exists(os.path.join(folder, name + suffix)) for suffix in _SUFFIXES):
        return True
    try:
        entries = os.listdir(folder)
    except OSError:
        return False
    return any(entry.startswith(f"{name}.") and entry.endswith(".so") for entry in entries)
