# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a file in the hooks folder will never run, is refused, or is going to fail.

``error``: it can't work. ``warning``: it runs, but probably not as meant. ``note``: worth knowing. Only files
are looked at, no script is run. Each finding names the file and what to do.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from vdsm.hooking.directory import Trust, trust_of
from vdsm.hooking.points import POINTS, REMOVED, Point, nearest
from vdsm.hooking.script_text import problems

_PREFIX = re.compile(r"[0-9]{2}_")
_LIBRARY_SUFFIXES = (".py", ".pyc", ".sh", ".md", ".txt", ".conf", ".json")
_LEFTOVERS = (".rpmsave", ".rpmnew", ".rpmorig", ".dpkg-old", ".dpkg-new", ".dpkg-dist", ".bak", ".orig", "~")
_MAX_READ = 1 << 20


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    path: str
    severity: Severity
    problem: str
    remedy: str = ""


def lint(hooks_folder: str, agent_uid: int) -> list[Finding]:
    """All findings of a hooks folder; ``agent_uid``: the user as whom most points run."""
    if not os.path.isdir(hooks_folder):
        return [Finding(hooks_folder, Severity.NOTE, "there is no hooks folder: no hook runs")]
    found: list[Finding] = []
    for name in sorted(os.listdir(hooks_folder)):
        path = os.path.join(hooks_folder, name)
        if os.path.isdir(path):
            found += _directory(path, name, agent_uid)
        elif not name.startswith("."):
            found.append(
                Finding(
                    path, Severity.WARNING, "a file beside the points never runs", "move it into a point's directory"
                )
            )
    return found


def _directory(folder: str, name: str, agent_uid: int) -> Iterator[Finding]:
    point = POINTS.get(name)
    if name in REMOVED:
        yield Finding(folder, Severity.ERROR, "this hook point no longer exists, its scripts never run")
        return
    if point is None:
        near = nearest(name)
        remedy = f"did you mean {near}?" if near else "see 'vdsm hooks list --all' for the names"
        yield Finding(folder, Severity.ERROR, "there is no such hook point, its scripts never run", remedy)
        return
    names = sorted(os.listdir(folder), key=os.fsencode)
    if names and not point.wired:
        problem = f"this version of the agent does not run {name} yet"
        yield Finding(folder, Severity.ERROR, problem, "take its scripts away until one does")
    trust = trust_of(0 if point.as_root else agent_uid)
    for entry in names:
        yield from _entry(os.path.join(folder, entry), entry, point, trust)


def _entry(path: str, name: str, point: Point, trust: Trust) -> Iterator[Finding]:
    if os.path.islink(path) and not os.path.exists(path):
        yield Finding(
            path, Severity.ERROR, f"a symbolic link to {os.readlink(path)}, which is not there", "mend or remove it"
        )
        return
    try:
        info = os.stat(path)
    except OSError as e:
        yield Finding(path, Severity.ERROR, f"can't be looked at: {e.strerror}")
        return
    if stat.S_ISDIR(info.st_mode):
        if name != "__pycache__":
            yield Finding(path, Severity.NOTE, "a directory inside a point is not looked into")
    elif not stat.S_ISREG(info.st_mode):
        yield Finding(path, Severity.ERROR, "neither a file nor a link to one, it never runs", "remove it")
    elif name.startswith("."):
        if _may_execute(info, point, trust):
            yield Finding(path, Severity.WARNING, "its name begins with a dot, so it never runs", "rename it")
    elif not _may_execute(info, point, trust):
        yield from _not_executable(path, name, info, point, trust)
    else:
        yield from _script(path, name, trust)


def _not_executable(path: str, name: str, info: os.stat_result, point: Point, trust: Trust) -> Iterator[Finding]:
    """A script is told all that is wrong at once, not the next thing after each remedy."""
    if info.st_mode & 0o111:
        who = "root" if point.as_root else "the agent's user"
        yield Finding(path, Severity.ERROR, f"not executable for {who}, so it never runs", f"chmod a+rx {path}")
        yield from _script(path, name, trust)
    elif name.endswith(_LIBRARY_SUFFIXES):
        yield Finding(path, Severity.NOTE, "not executable: taken for something that scripts use")
    else:
        yield Finding(path, Severity.ERROR, "not executable, so it never runs", f"chmod 0755 {path}")
        yield from _script(path, name, trust)


def _script(path: str, name: str, trust: Trust) -> Iterator[Finding]:
    objection = trust.objection(path)
    if objection:
        remedy = f"chown root:root {path}; chmod 0755 {path}, and the same for its directory"
        yield Finding(path, Severity.ERROR, f"refused: {objection}", remedy)
    if name.endswith(_LEFTOVERS):
        yield Finding(path, Severity.WARNING, "looks like a left-over copy, and it runs", "remove it, or chmod a-x")
    if not _PREFIX.match(name):
        yield Finding(
            path,
            Severity.WARNING,
            "its name has no two-digit prefix, so its place in the order is by chance",
            f"rename it to 50_{name}",
        )
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_READ)
    except OSError as e:
        yield Finding(path, Severity.WARNING, f"can't be read here ({e.strerror}): its text was not checked")
        return
    for problem in problems(content, os.path.dirname(os.path.realpath(path))):
        severity = Severity.ERROR if problem.fatal else Severity.WARNING
        yield Finding(path, severity, problem.text, problem.remedy)


def _may_execute(info: os.stat_result, point: Point, trust: Trust) -> bool:
    """For the user of the point, who need not be the reader of this lint. Its groups are not looked up."""
    if point.as_root:
        return bool(info.st_mode & 0o111)
    if info.st_uid in trust.owners - {0}:
        return bool(info.st_mode & stat.S_IXUSR)
    return bool(info.st_mode & (stat.S_IXOTH | stat.S_IXGRP))
