# SPDX-License-Identifier: GPL-2.0-or-later
"""What lies below the contracts (`storage.domain`, `storage.source`), put together for one process.

The only module above a half that imports one: all others get what they need from here, by contract. The linter holds
them to that (setup.cfg).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.edges import LeasesOf
from storage.file import iopool
from storage.file.domain import FILE_KINDS
from storage.file.folders import MountedLooks
from storage.file.iopool import IoPools
from storage.file.source import MountedFolders
from storage.file.steps import READERS
from storage.ondisk.values import DomainKind
from storage.servers.connectors import Folders
from storage.source import DomainSource
from storage.spm.own_lease import Writers
from storage.tasks import steps
from storage.tasks.steps import Read

REQUEST_S = iopool.REQUEST_S


STEPS_BACK: Mapping[str, Read] = {**steps.READERS, **READERS}
"""How stored steps back are read, of whatever kind of domain."""


@dataclass(frozen=True)
class Halves:
    """``sources``: by the kind of domain that is found and made there. ``writers``: whatever touches storage for this
    process; to be closed last."""

    source: DomainSource
    sources: Mapping[DomainKind, DomainSource]
    writers: Writers
    folders: Folders


def halves(mounts: str, leases_of: LeasesOf, *, io_timeout_s: int, request_timeout_s: float = REQUEST_S) -> Halves:
    """``mounts``: ``<repository>/mnt``; ``io_timeout_s``: the lock daemon's; ``request_timeout_s``: of one request to a
    mount, its wait included."""
    pools = IoPools(request_timeout_s)
    mounted = MountedFolders(mounts, leases_of, pools, io_timeout_s=io_timeout_s)
    return Halves(mounted, dict.fromkeys(FILE_KINDS, mounted), pools, MountedLooks(pools))
