# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verb of the root helper, loaded; and what each part does before the first call."""

from __future__ import annotations

import importlib
import importlib.util

from vdsm.root.server.registry import Helper, root_verb  # noqa: F401

_MODULES = ("mounts", "network", "hooks")

for _name in _MODULES:
    if importlib.util.find_spec(f"vdsm.root.server.{_name}"):
        importlib.import_module(f"vdsm.root.server.{_name}")


async def recover(helper: Helper) -> None:
    """Mend what a crash left half done, part by part, before calls are accepted."""
    if importlib.util.find_spec("vdsm.root.server.network"):
        network = importlib.import_module("vdsm.root.server.network")
        if hasattr(network, "recover"):
            await network.recover(helper)
