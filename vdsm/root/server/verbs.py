# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verb of the root helper, loaded; and what each part does before the first call."""

from __future__ import annotations

from vdsm.root.server import folders, hooks, mount_points, mounts, network
from vdsm.root.server.registry import Helper

PARTS = (folders, hooks, mounts, network)


async def recover(helper: Helper) -> None:
    """Mend what a crash left half done, before calls are accepted."""
    await mount_points.sweep(helper)
    await network.recover(helper)
