# SPDX-License-Identifier: GPL-2.0-or-later
"""What a verb gets beside its parameters: the agent's parts, and who calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vdsm.api.roles import Identity
from vdsm.common.events import Events
from vdsm.common.jobs import Jobs
from vdsm.common.paths import Paths
from vdsm.config import Settings
from vdsm.root.client import Root

if TYPE_CHECKING:
    from network.service import Network
    from storage.service import Storage
    from vdsm.hooking.service import Hooks
    from vdsm.host.service import Host
    from vdsm.virt.vms import Vms


@dataclass
class Agent:
    """The running agent's parts, each the single owner of its state. Made by the composition root."""

    paths: Paths
    settings: Settings
    jobs: Jobs
    events: Events
    storage: Storage
    network: Network
    vms: Vms
    host: Host
    hooks: Hooks
    root: Root


def _nothing() -> None:
    return


@dataclass
class Call:
    agent: Agent
    identity: Identity
    flow_id: str
    transport: str
    in_order: Callable[[], None] = _nothing
    """For a verb whose work keeps its order where it is done, once it has its place there: who stands behind this call
    in a line (`vdsm.api.lines`) begins then, and need not wait for its end."""
