# SPDX-License-Identifier: GPL-2.0-or-later
"""Which connector each kind of connection has. iSCSI and FC are to join here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from storage.access import Identity
from storage.file.iopool import IoPools
from storage.servers.kinds import LocalFolder, NfsExport, PosixMount
from storage.servers.local import LocalFolders
from storage.servers.mounts import Mounts
from storage.servers.reach import Reach
from vdsm.root.client import Root


class Connector(Protocol):
    """Each takes its own kind of connection. Both raise `AgentError`, and are done again without harm."""

    async def connect(self, connection: Any) -> None: ...
    async def disconnect(self, connection: Any) -> None: ...


Connectors = Mapping[type, Connector]


def connectors(
    mounts: str, root: Root, pools: IoPools, *, qemu_users: Sequence[Identity], io_timeout_s: int
) -> Connectors:
    """``mounts``: the folder of all mounts; ``io_timeout_s``: the lock daemon's."""
    mounted = Mounts(mounts, root, pools, Reach(), io_timeout_s)
    return {LocalFolder: LocalFolders(root, pools, qemu_users), PosixMount: mounted, NfsExport: mounted}
