# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has which lock of this host's storage: for people, our own verb."""

from __future__ import annotations

from vdsm.api.call import Call
from vdsm.api.registry import verb
from vdsm.api.roles import Role
from vdsm.api.types import JsonDict, NoParams


@verb("storage.getLocks", role=Role.READER)
async def storage_get_locks(call: Call, params: NoParams) -> list[JsonDict]:
    """Locks of this host's storage that somebody holds: who, and who waits, each for how many seconds."""
    return [
        {
            "lock": state.lock,
            "mode": state.mode.value,
            "holders": [{"who": who, "seconds": round(held_s, 3)} for who, held_s in state.holders],
            "waiting": [
                {"who": who, "mode": mode.value, "seconds": round(waited_s, 3)} for who, mode, waited_s in state.waiting
            ],
        }
        for state in call.agent.storage.locks.states()
    ]
