# SPDX-License-Identifier: GPL-2.0-or-later
"""Who this host is: one UUID for the engine, for libvirt and for sanlock.

``/etc/vdsm/vdsm.id`` when an admin or the engine wrote it, else the DMI system UUID; a host with
neither gets a random one that is kept in the agent's own state.
"""

from __future__ import annotations

import os

from vdsm.common.atomic import write_atomic
from vdsm.common.ids import BLANK_UUID, is_uuid, new_uuid
from vdsm.common.paths import Paths
from vdsm.host.tree import Tree

_DMI = "/sys/class/dmi/id/product_uuid"


def host_uuid(paths: Paths, tree: Tree | None = None) -> str:
    tree = tree or Tree()
    written = tree.text(paths.host_id_file)
    if written:  # an engine compares it as it stands, so it is not made canonical
        return written
    kept_file = os.path.join(paths.state, "identity", "host_id")
    dmi = tree.text(_DMI).lower()
    for candidate in (tree.text(kept_file), dmi):
        if is_uuid(candidate) and candidate != BLANK_UUID:
            return candidate
    fresh = new_uuid()
    write_atomic(tree.path(kept_file), f"{fresh}\n".encode())
    return fresh
