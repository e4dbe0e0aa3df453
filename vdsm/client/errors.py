# SPDX-License-Identifier: GPL-2.0-or-later
"""How a call can fail, seen from the caller."""

from __future__ import annotations

from typing import Any

from vdsm.common.errors import AgentError


class ClientError(AgentError):
    """Any failure of a call."""


class RpcError(ClientError):
    """The agent answered with an error: its code, its message, and more about it in ``data``."""

    method: str
    code: int
    message: str
    data: Any = None
    msg = "{self.method} failed with code {self.code}: {self.message}"

    @property
    def advice(self) -> str:
        """What to do about it, when the agent knows."""
        return str(self.data.get("remedy", "")) if isinstance(self.data, dict) else ""


class ConnectionLost(ClientError):
    """The agent can't be reached, or its connection ended or went wrong before the answer: the call may have run."""

    where: str
    reason: str
    msg = "No connection to the agent at {self.where}: {self.reason}"
    remedy = "See that it runs: systemctl status vdsm"


class Unsendable(ClientError):
    """The caller's own parameters or flow id can't be put into a message; nothing was sent."""

    method: str
    reason: str
    msg = "{self.method} can't be called with {self.reason}"


class NoAnswer(ClientError):
    """Nothing came in time. The call goes on in the agent."""

    method: str
    seconds: float
    msg = "{self.method} got no answer within {self.seconds:g} s"
