# SPDX-License-Identifier: GPL-2.0-or-later
"""Host verbs that answer by themselves: is somebody there?"""

from __future__ import annotations

from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import NoParams, Params, Text


@verb("Host.ping", role=Role.READER, urgent=True)
async def host_ping(call: Call, params: NoParams) -> None:
    """Answer true: the agent serves calls. Kept for old clients; use Host.ping2.

    From who may confirm, it also says that this host is still reached, as Host.confirmConnectivity does.
    """
    if call.identity.may_call(Role.ADMIN):
        call.agent.network.confirm_connectivity()


@verb("Host.ping2", role=Role.READER, urgent=True)
async def host_ping2(call: Call, params: NoParams) -> None:
    """Answer true: the agent serves calls. Nothing else happens."""


class Echo(Params):
    message: Text


@verb("Host.echo", role=Role.READER)
async def host_echo(call: Call, params: Echo) -> str:
    """Answer the message."""
    return params.message
