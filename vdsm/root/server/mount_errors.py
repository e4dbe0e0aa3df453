# SPDX-License-Identifier: GPL-2.0-or-later
"""Why root mounts, unmounts or shows something not.

Agents know the classes by their names, and put the texts of those that are about the storage behind its name.
"""

from __future__ import annotations

from vdsm.common.errors import AgentError


class MountInUse(AgentError):
    mount_id: str
    msg = "Mount {self.mount_id!r} is mounted with another type or other options"
    remedy = "Disconnect the storage server, then connect it again"


class MountUsed(AgentError):
    mount_id: str
    users: list[str]
    msg = "Mount {self.mount_id!r} is used by VMs and is not cut off: {self.users}"
    remedy = "Stop these VMs first, or move their disks"


class MountAccessRefused(AgentError):
    path: str
    user: str
    needs: str
    msg = "user {self.user} cannot {self.needs} it"
    remedy = "Give the folder on the storage to owner and group 36:36 with all rights for both"


class ExportAccessRefused(AgentError):
    path: str
    user: str
    needs: str
    todo: str
    msg = "user {self.user} cannot {self.needs} it; on the server: {self.todo}"


class MountNoDirectIo(AgentError):
    path: str
    msg = "it refuses direct I/O, which leases need"
    remedy = "Export a file system that supports O_DIRECT"


class MountUnfit(AgentError):
    path: str
    reason: str
    msg = "{self.reason}"
