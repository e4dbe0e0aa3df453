# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that belong together are replaced together: all old or all new, also after a kill or a power cut.

    .new written and flushed -> renamed to .ready -> each file copied to its place -> .ready removed

``.ready`` is the decision. Whoever finds it completes it: the next command that changes certificates, or the root
helper when it starts. It counts only when it belongs to who completes it: on hosts that VDSM set up, the folder is the
agent's, and what the agent can write must not tell root what to do. A key and its certificate that do not match for a
moment do no harm, since the agent keeps the pair that it loaded until the new one loads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import msgspec

from vdsm.common.atomic import fsync_folder, write_atomic
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError

_NEW, _READY = ".new", ".ready"
_MANIFEST = "files.json"

DECIDED = crash_point("certificates.install.decided", "the new files are on disk, none is in its place")
COPIED = crash_point("certificates.install.copied", "one of the new files is in its place")


@dataclass(frozen=True)
class File:
    """``path`` is where it goes, below the folder; owner and group are numbers."""

    path: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


class ForeignDecision(AgentError):
    folder: str
    reason: str
    msg = "{self.folder} is not ours to complete: {self.reason}"
    remedy = "Remove it, then import the certificates again"


def install(folder: str, files: Sequence[tuple[File, bytes]]) -> None:
    """Raises `OSError`: then nothing is changed, or `complete` will finish it."""
    complete(folder)
    new = os.path.join(folder, _NEW)
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new, mode=0o700)
    try:
        for number, (_, data) in enumerate(files):
            write_atomic(os.path.join(new, str(number)), data, mode=0o600)
        manifest = msgspec.json.encode([asdict(file) for file, _ in files])
        write_atomic(os.path.join(new, _MANIFEST), manifest, mode=0o600)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise
    os.rename(new, os.path.join(folder, _READY))
    fsync_folder(folder)
    DECIDED.reach()
    complete(folder)


def is_interrupted(folder: str) -> bool:
    return os.path.isdir(os.path.join(folder, _READY))


def complete(folder: str) -> bool:
    """Finish an installation that was cut off; whether there was one."""
    ready = os.path.join(folder, _READY)
    try:
        with open(os.path.join(ready, _MANIFEST), "rb") as source:
            files = msgspec.json.decode(source.read(), type=list[File])
    except FileNotFoundError:
        shutil.rmtree(ready, ignore_errors=True)  # all were copied, the removal was cut off
        return False
    _check(ready, files)
    for number, file in enumerate(files):
        with open(os.path.join(ready, str(number)), "rb") as source:
            data = source.read()
        path = os.path.join(folder, file.path)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write_atomic(path, data, mode=file.mode, owner=(file.uid, file.gid))
        COPIED.reach()
    os.unlink(os.path.join(ready, _MANIFEST))
    shutil.rmtree(ready)
    fsync_folder(folder)
    return True


def _check(ready: str, files: list[File]) -> None:
    for path in (ready, os.path.join(ready, _MANIFEST)):
        status = os.lstat(path)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ForeignDecision(ready, f"{path} belongs to user {status.st_uid} or others may write it")
    for file in files:
        inside = os.path.normpath(file.path)
        if os.path.isabs(inside) or inside.startswith(".."):
            raise ForeignDecision(ready, f"{file.path!r} is outside")
