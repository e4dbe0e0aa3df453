# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm call`: any verb, with words typed by what the agent itself says of its API."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vdsm.cli.connection import connect
from vdsm.cli.values import BadArgument, Types, nearest, parameters

DISCOVER = "rpc.discover"
_DISCOVER_S = 10.0


class UnknownVerb(BadArgument):
    """A name that the agent does not serve."""


async def call(verb: str, words: Sequence[str], timeout_s: float) -> Any:
    async with connect() as client:
        document = await client.call(DISCOVER, timeout_s=min(_DISCOVER_S, timeout_s))
        methods = {method["name"]: method for method in document["methods"]}
        if verb not in methods:
            near = nearest(verb, list(methods))
            advice = f"did you mean {near}?" if near else "'vdsm doctor --api' lists them"
            reason = f"the agent has no such verb; {advice}"
            raise UnknownVerb(verb, reason)
        types = Types(methods[verb], document.get("components", {}).get("schemas", {}))
        params = parameters(words, types, read_text) if words else None
        if not isinstance(params, list):
            types.refuse_incomplete(params or {})
        return await client.call(verb, params, timeout_s=timeout_s)


def failed_entries(answer: Any) -> list[str]:
    """Of a verb that answers with a status for each entry: what did not succeed, and why."""
    entries = answer if isinstance(answer, list) else []
    return [
        f"{entry.get('id', number)} has failed: {entry.get('reason', 'the agent does not say why')} (code {status})"
        for number, entry in enumerate(entries)
        if isinstance(entry, dict) and isinstance(status := entry.get("status"), int) and status != 0
    ]


def read_text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as e:
        raise BadArgument(f"@{name}", f"can't be read: {getattr(e, 'strerror', None) or e}") from None


def verb_names() -> list[str]:
    """For completion. From the code, so that it works without an agent."""
    from vdsm.api import registry

    return sorted(registry.load())
