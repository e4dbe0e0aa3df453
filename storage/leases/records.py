# SPDX-License-Identifier: GPL-2.0-or-later
"""Who took the lease of a domain last on this host: ``<folder>/<domain>`` holds the number of the process.

A lease outlives the process that took it while a writer of that process does. Writers are the members of its session,
and a session's number is given to nobody else while it has members: so the number tells whose they are, also when
process and agent are long gone. The folder ends with the boot, as do they.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from vdsm.common import groups
from vdsm.common.atomic import write_atomic

log = logging.getLogger("vdsm.storage.leases")


@dataclass(frozen=True)
class Left:
    """What keeps a domain's lease: members of the session of the process that took it."""

    pid: int
    members: tuple[groups.Member, ...]

    @property
    def alone(self) -> bool:
        """The process itself is gone."""
        return all(member.pid != self.pid for member in self.members)

    def __str__(self) -> str:
        return ", ".join(map(str, self.members))


def write(folder: str, domain_id: str) -> None:
    """This process took it. A full disk costs a sentence, not the role."""
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        write_atomic(os.path.join(folder, domain_id), f"{os.getpid()}\n".encode())
    except OSError as e:
        log.warning("the lease of domain %s is not on record: %s", domain_id, e)


def left(folder: str, domain_id: str) -> Left | None:
    """None when nothing is on record, or nobody is left."""
    try:
        with open(os.path.join(folder, domain_id), encoding="ascii") as f:
            pid = int(f.read())
    except (OSError, ValueError):
        return None
    members = groups.session_members(pid)
    return Left(pid, tuple(members)) if members else None


def all_left(folder: str) -> dict[str, Left]:
    """By domain: writers whose process is gone."""
    try:
        domain_ids = sorted(os.listdir(folder))
    except FileNotFoundError:
        return {}
    found = {domain_id: left(folder, domain_id) for domain_id in domain_ids}
    return {domain_id: kept for domain_id, kept in found.items() if kept is not None and kept.alone}
