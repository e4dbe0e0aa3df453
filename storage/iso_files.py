# SPDX-License-Identifier: GPL-2.0-or-later
"""What people put into an ISO domain, as engines list them: by a shell pattern, and whether QEMU may read them."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from storage.access import Identity
from storage.domain import PeoplesFile
from storage.domains import Domains

ALL = "*"


@dataclass(frozen=True)
class IsoFile:
    file: PeoplesFile
    readable: bool
    """By every user that QEMU may run as here."""


class IsoFiles:
    def __init__(self, domains: Domains, qemu_users: Sequence[Identity]) -> None:
        self._domains = domains
        self._qemu_users = qemu_users

    async def matching(self, domain_id: str, pattern: str, *, case_sensitive: bool) -> dict[str, IsoFile]:
        """By name relative to the domain's one folder; none in a domain of images."""
        domain = await self._domains.get(domain_id)
        return {
            name: IsoFile(file, all(_may_read(file, user) for user in self._qemu_users))
            for name, file in (await domain.peoples_files()).items()
            if pattern == ALL or _matches(name, pattern, case_sensitive)
        }


def _matches(name: str, pattern: str, case_sensitive: bool) -> bool:
    if case_sensitive:
        return fnmatch.fnmatchcase(name, pattern)
    return fnmatch.fnmatchcase(name.lower(), pattern.lower())


def _may_read(file: PeoplesFile, user: Identity) -> bool:
    if user.uid == file.uid:
        return bool(file.mode & 0o400)
    return bool(file.mode & (0o040 if file.gid in user.groups else 0o004))
