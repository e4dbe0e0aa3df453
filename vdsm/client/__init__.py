# SPDX-License-Identifier: GPL-2.0-or-later
"""The one JSON-RPC client: CLI, hook tools, lab, tests and hosts among each other use it."""

from vdsm.client.client import Client, Notice
from vdsm.client.errors import ClientError, ConnectionLost, NoAnswer, RpcError, Unsendable

__all__ = ["Client", "ClientError", "ConnectionLost", "NoAnswer", "Notice", "RpcError", "Unsendable"]
