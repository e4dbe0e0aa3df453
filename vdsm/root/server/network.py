# SPDX-License-Identifier: GPL-2.0-or-later
"""Networking that needs root. The agent names networks, never steps: what the kernel gets is decided here."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import asdict

import msgspec

from network import model, rollback
from network.errors import BadParams
from network.journal import Folder
from network.kernel import opened
from network.plan import problems
from network.transaction import Transactions
from network.waiting import Restorer, pick_up
from vdsm.common.clocks import Clock
from vdsm.common.errors import AgentError
from vdsm.common.types import Json
from vdsm.root.server.registry import Helper, root_verb

log = logging.getLogger("vdsm.network")

_transactions: dict[str, Transactions] = {}
_late: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected


class NoParams(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Setup(msgspec.Struct, forbid_unknown_fields=True):
    networks: dict[str, dict[str, object]]
    bondings: dict[str, dict[str, object]]
    wait_s: float
    persist: bool


class Pending(msgspec.Struct, forbid_unknown_fields=True):
    id: str


def _folder(helper: Helper) -> Folder:
    return Folder(os.path.join(helper.paths.root_state, "network"))


def _changes(helper: Helper) -> Transactions:
    folder = _folder(helper)
    return _transactions.setdefault(folder.path, Transactions(folder))


@root_verb("Network.state", NoParams)
async def state(helper: Helper, params: NoParams) -> Json:
    """What the kernel has, what we run, what is persisted, and where kernel and running differ."""
    return await asyncio.to_thread(_state, _folder(helper))


def _state(folder: Folder) -> Json:
    with opened() as kernel:
        seen = kernel.state()
    running = folder.running()
    answer: Json = msgspec.to_builtins(
        {
            "state": asdict(seen),
            "running": {name: asdict(net) for name, net in running.items()},
            "persistent": {name: asdict(net) for name, net in folder.persistent().items()},
            "waiting": sorted(folder.waiting()),
            "drift": problems(running, seen),
        }
    )
    return answer


@root_verb("Network.setup", Setup)
async def setup(helper: Helper, params: Setup) -> Json:
    """Apply and read back; the id of the change that now waits for Network.keep or Network.undo."""
    if not 0 <= params.wait_s <= 600:
        raise BadParams("wait_s", str(params.wait_s), "from 0 to 600")
    request = model.parse(params.networks, params.bondings)
    with Clock("network.apply"):
        return await asyncio.to_thread(_changes(helper).setup, request, wait_s=params.wait_s, persist=params.persist)


@root_verb("Network.keep", Pending)
async def keep(helper: Helper, params: Pending) -> Json:
    await asyncio.to_thread(_changes(helper).keep, params.id)
    return None


@root_verb("Network.undo", Pending)
async def undo(helper: Helper, params: Pending) -> Json:
    with Clock("network.rollback"):
        await asyncio.to_thread(_changes(helper).undo, params.id)
    return None


@root_verb("Network.finish", NoParams)
async def finish(helper: Helper, params: NoParams) -> Json:
    """For an agent that starts: a change that its predecessor left unconfirmed is undone now."""
    return await asyncio.to_thread(rollback.finish, _folder(helper))


@root_verb("Network.persist", NoParams)
async def persist(helper: Helper, params: NoParams) -> Json:
    folder = _folder(helper)
    await asyncio.to_thread(lambda: folder.write_persistent(folder.running(), folder.waiting()))
    return None


async def recover(helper: Helper) -> None:
    """At the helper's start: finish a change that a crash left, restore what waits since boot, then look for drift."""
    restorer = Restorer(_folder(helper), _changes(helper).restore)
    try:
        waits = await asyncio.to_thread(_recover, _folder(helper), restorer)
    except (OSError, AgentError) as e:  # a record that can't be read: the helper serves all else
        log.error("networks were not recovered: %s", e)
        return
    if waits:
        task = asyncio.get_running_loop().create_task(pick_up(restorer))
        _late.add(task)
        task.add_done_callback(_late.discard)


def _recover(folder: Folder, restorer: Restorer) -> bool:
    """Whether a network still waits."""
    try:
        end = rollback.finish(folder)
        if end:
            log.warning("a change of networks that was interrupted was %s", end)
    except AgentError as e:  # it is tried again by whatever is changed next
        log.error("%s", e)
    waits = restorer.look()
    with opened() as kernel:
        for line in problems(folder.running(), kernel.state()):
            log.warning("drift: %s", line)
    return waits
