# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks of NFS 4 that a server forgot are taken again.

QEMU locks a disk's file. When this host does not reach the server for longer than the server's lease (90 s by its
default), the server may drop what it knows of us. The kernel then opens the files again, but takes no locks: somebody
else may have had them meanwhile. Each read and write through a file with a lost lock fails with EIO until the file is
closed, so the VM would be paused for ever, however well the storage is.

Who may use a disk is decided by leases and the engine, not by these locks, and QEMU's are all shared. So the kernel is
told to take them again. That is one parameter for all NFS of the host.
"""

from __future__ import annotations

import logging

log = logging.getLogger("vdsm.root.mounts")

PARAMETER = "/sys/module/nfs/parameters/recover_lost_locks"


def take_again() -> None:
    """To be called when the kernel's client of NFS is loaded: something of it is mounted."""
    try:
        with open(PARAMETER, "r+", encoding="ascii") as f:
            if f.read(1) == "Y":
                return
            f.seek(0)
            f.write("Y")
    except OSError as e:
        log.warning("VMs on NFS 4 may stay paused after a long silence of their server: %s: %s", PARAMETER, e.strerror)
    else:
        log.info("nfs.recover_lost_locks is on: after a long silence of a server VMs can go on")
