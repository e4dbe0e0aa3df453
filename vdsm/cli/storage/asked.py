# SPDX-License-Identifier: GPL-2.0-or-later
"""How the agent is asked about storage, and which domain a person means."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from vdsm.cli.connection import connect
from vdsm.cli.values import BadArgument
from vdsm.client import Client
from vdsm.common.errors import AgentError

TIMEOUT_S = 10.0
_COMPLETE_S = 2.0

Row = Mapping[str, Any]


async def rows(client: Client, verb: str, domain_id: str = "") -> list[Row]:
    found: list[Row] = await client.call(verb, {"domain": domain_id} if domain_id else None, timeout_s=TIMEOUT_S)
    return found


async def about(client: Client, verb: str, word: str) -> list[Row]:
    """Of all domains, or of the one that is meant. Raises `BadArgument`."""
    return await rows(client, verb, meant(word, await rows(client, "storage.getDomains")) if word else "")


async def names(client: Client) -> dict[str, str]:
    """Domains' names by id."""
    return {domain["id"]: str(domain["name"] or "") for domain in await rows(client, "storage.getDomains")}


def meant(word: str, domains: Sequence[Row]) -> str:
    """The id. Raises `BadArgument` when no domain is meant, or more than one."""
    ids = [domain["id"] for domain in domains]
    if word in ids:
        return word
    found = [d["id"] for d in domains if d["name"] == word] or [name for name in ids if name.startswith(word.lower())]
    if len(found) == 1:
        return str(found[0])
    known = ", ".join(found or ids) or "there are none"
    raise BadArgument(word, f"{'more than one domain is' if found else 'no domain of this host is'} meant: {known}")


def complete(incomplete: str) -> list[tuple[str, str]]:
    """For the shell: ids with names. Without an agent none."""

    async def ask() -> list[Row]:
        async with asyncio.timeout(_COMPLETE_S), connect() as client:
            return await rows(client, "storage.getDomains")

    try:
        domains = asyncio.run(ask())
    except (AgentError, TimeoutError, OSError):
        return []
    return [(d["id"], str(d["name"] or "")) for d in domains if d["id"].startswith(incomplete)]
