# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scripts a point has, in which order, and which of them are refused.

Candidates are the regular files (symbolic links are followed) of the point's directory that this user may
execute and whose name does not begin with a dot, in byte order of their names.

A candidate that others could have written is refused: it is listed with the reason, never run.

The listing is kept until the directory's times or any of its files' times change. The files' ctime counts
because chmod of a file does not touch its directory.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

# more than any way that the kernel would go
MAX_STEPS = 4096

_Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Script:
    name: str
    path: str
    refused: str = ""


@dataclass(frozen=True)
class Trust:
    """Whose files may be run. ``strict`` is for root: no group may write, and the way to the file counts too."""

    owners: frozenset[int]
    strict: bool = False

    def objection(self, path: str) -> str:
        """Why the file must not be run; empty when it may."""
        real = os.path.realpath(path)
        for place in self._places(path, real):
            try:
                info = os.stat(place)
            except OSError as e:
                return f"{place}: {e.strerror}"
            what = "it" if place == real else f"its directory {place}"
            if info.st_uid not in self.owners:
                return f"{what} belongs to user {info.st_uid}, expected {self._expected()}"
            writers = stat.S_IWOTH | (stat.S_IWGRP if self.strict else 0)
            if info.st_mode & writers and not (stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX):
                who = "every user" if info.st_mode & stat.S_IWOTH else f"group {info.st_gid}"
                return f"{what} is writable by {who} (mode {stat.S_IMODE(info.st_mode):04o})"
        return ""

    def _places(self, path: str, real: str) -> list[str]:
        folders = {os.path.dirname(os.path.abspath(path)), os.path.dirname(real)}
        if self.strict:
            folders |= set(_way(path))
        return [real, *sorted(folders)]

    def _expected(self) -> str:
        return " or ".join("root" if uid == 0 else f"user {uid}" for uid in sorted(self.owners))


def trust_of(uid: int) -> Trust:
    """What a process of this user may run: root's files and its own; root only what nobody else could change."""
    return Trust(frozenset({0}), strict=True) if uid == 0 else Trust(frozenset({0, uid}))


class Directory:
    """The hooks of one point."""

    def __init__(self, folder: str, trust: Trust) -> None:
        self.folder = folder
        self._trust = trust
        self._stamp: _Stamp | None = None
        self._files: dict[str, _Stamp | None] = {}
        self._scripts: tuple[Script, ...] = ()

    def scripts(self) -> tuple[Script, ...]:
        """Costs one stat when the directory is missing or empty, one more for each file in it."""
        stamp = _stamp(self.folder)
        if stamp is None:
            self._stamp, self._files, self._scripts = None, {}, ()
        elif stamp != self._stamp or any(_stamp(path) != seen for path, seen in self._files.items()):
            self._read()
            self._stamp = stamp
        return self._scripts

    def _read(self) -> None:
        try:
            names = sorted(os.listdir(self.folder), key=os.fsencode)
        except OSError:
            names = []
        paths = [os.path.join(self.folder, name) for name in names if not name.startswith(".")]
        self._files = {path: _stamp(path) for path in paths}
        self._scripts = tuple(
            Script(os.path.basename(path), path, self._trust.objection(path)) for path in paths if is_candidate(path)
        )


class Directories:
    """All points of a hooks folder."""

    def __init__(self, root: str, trust: Trust | None = None) -> None:
        self.root = root
        self._trust = trust or trust_of(os.geteuid())
        self._directories: dict[str, Directory] = {}

    def scripts(self, point: str) -> tuple[Script, ...]:
        directory = self._directories.get(point)
        if directory is None:
            directory = self._directories[point] = Directory(os.path.join(self.root, point), self._trust)
        return directory.scripts()

    def is_empty(self, point: str) -> bool:
        """Whether the directory surely has nothing in it, for whoever may run it."""
        try:
            return not os.listdir(os.path.join(self.root, point))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # not ours to see: the root helper knows
            return False


def is_candidate(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _stamp(path: str) -> _Stamp | None:
    """Of the file itself, not of a link to it: what runs is the target."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_size)


def _way(path: str) -> list[str]:
    """Every folder in which a name is looked up on the way to the file, links on the way and their targets included."""
    looked_up_in, here = [], "/"
    names = os.path.abspath(path).split("/")[1:]
    for _ in range(MAX_STEPS):
        if not names:
            break
        looked_up_in.append(here)
        name = names.pop(0)
        place = os.path.dirname(here) if name == ".." else os.path.join(here, name) if name not in ("", ".") else here
        if os.path.islink(place):
            target = os.readlink(place)
            here = "/" if target.startswith("/") else here
            names[:0] = target.split("/")
        else:
            here = place
    return looked_up_in
