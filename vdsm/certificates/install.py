# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that belong together are replaced together: all old or all new, also after a kill or a power cut.

    the decision is written: one file with all of them -> each is put in its place -> the decision is removed

Whoever finds a decision completes it: the next command that changes certificates, or the root helper when it starts.
The agent may own the folder of certificates, and must not tell root what to do. So the decision lies where only root
writes (`places.decision`), it names nothing but files that are known here, and how they are owned and who may read
them is not written in it. A key and its certificate that do not match for a moment do no harm, since the agent keeps
the pair that it loaded until the new one loads.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
from collections.abc import Iterator, Mapping

import msgspec

from vdsm.certificates import below, places
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError

AGENT_ID = 36
MAX_BYTES = 8 << 20  # of a decision: each of the files at its largest, as JSON

MODES = {
    places.AUTHORITY: 0o644,
    places.CERTIFICATE: 0o644,
    places.KEY: 0o440,
    places.LAB_AUTHORITY: 0o644,
    places.LAB_KEY: 0o400,
}

DECIDED = crash_point("certificates.install.decided", "the new files are on disk, none is in its place")
COPIED = crash_point("certificates.install.copied", "one of the new files is in its place")


class BadDecision(AgentError):
    file: str
    reason: str
    msg = "{self.file} is no change of certificates to complete: {self.reason}"
    remedy = "Remove it, then do again what was cut off: vdsm cert import, renew or init"


class NotComplete(AgentError):
    file: str
    reason: str
    msg = "The new certificates are kept in {self.file}, but not all are in place yet: {self.reason}"
    remedy = "Mend that: the next vdsm cert renew or import completes the change, or vdsm-root when it starts"


class DecisionLost(AgentError):
    file: str
    msg = "Somebody removed {self.file} before the new certificates were in place"
    remedy = "vdsm cert status tells what is in place; see who may write the folder, then do the same again"


class Busy(AgentError):
    folder: str
    msg = "Another command is replacing certificates: {self.folder} is locked"
    remedy = "Do the same again when it has ended"


def install(pki: str, files: Mapping[str, bytes]) -> None:
    """``files``: by their names below the folder, each one of `MODES`.

    Raises `OSError`, `Busy` and `below.NotAFolder`: nothing is changed. `NotComplete`: what was decided stands and is
    completed later. `DecisionLost`: it never will be.
    """
    assert files.keys() <= MODES.keys()
    folder, name = os.path.split(places.decision(pki))
    if folder != pki:
        os.makedirs(os.path.dirname(folder), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
    with _alone(folder):
        _complete(pki)
        for path in files:  # what can't be completed is not to be decided
            with below.opened(pki, os.path.dirname(path), make=0o755):
                pass
        below.write(folder, name, msgspec.json.encode(files), 0o600)
        DECIDED.reach()
        if not _complete(pki):
            raise DecisionLost(places.decision(pki))


def is_interrupted(pki: str) -> bool:
    """False also for who may not look."""
    return os.path.lexists(places.decision(pki))


def complete(pki: str) -> bool:
    """Finish an installation that was cut off; whether there was one.

    Raises `BadDecision`, `NotComplete`, `Busy`, `OSError`.
    """
    if not is_interrupted(pki):
        return False
    with _alone(os.path.dirname(places.decision(pki))):
        return _complete(pki)


def _complete(pki: str) -> bool:
    decision = places.decision(pki)
    folder, name = os.path.split(decision)
    try:
        files = _read(folder, name)
    except FileNotFoundError:
        return False
    try:
        for path, data in files.items():
            below.write(pki, path, data, MODES[path], _owner(path))
            COPIED.reach()
    except (OSError, below.NotAFolder) as e:
        told = f"{e.filename or pki}: {e.strerror}" if isinstance(e, OSError) else str(e)
        raise NotComplete(decision, told) from None
    below.remove(folder, name)
    return True


def _read(folder: str, name: str) -> dict[str, bytes]:
    decision = os.path.join(folder, name)
    try:
        data = below.read(folder, name, {os.geteuid()}, private=True, limit=MAX_BYTES)
        files = msgspec.json.decode(data, type=dict[str, bytes])
    except (below.NotTaken, msgspec.DecodeError) as e:
        raise BadDecision(decision, str(e)) from None
    for path in files.keys() - MODES.keys():
        raise BadDecision(decision, f"{path!r} is no file of certificates")
    return files


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """One command at a time, so that the files of two are not mixed. Never waits: the agent may hold its own folder."""
    with below.opened(folder, "") as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(folder) from None
        yield


def _owner(path: str) -> tuple[int, int]:
    """The host's key is of the agent's user and of QEMU's group, which reads it for encrypted migration (deploy.md)."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    if path != places.KEY:
        return 0, 0
    try:
        return AGENT_ID, grp.getgrnam("kvm").gr_gid
    except KeyError:
        return AGENT_ID, AGENT_ID
