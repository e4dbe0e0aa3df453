# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's side of networking: one setup at a time, hooks around it, the wait for a confirmation.

A setup runs to its end although the connection that asked for it goes away: the change may have cut it.
The kernel, the journal and the configurations belong to the root helper; whatever dies here, it undoes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from network import model, report
from network.errors import BadParams, ConnectivityLost, NotPending, SetupRunning
from network.state import State
from vdsm.common.clocks import Clock
from vdsm.common.crashpoints import crash_point
from vdsm.common.errors import AgentError
from vdsm.common.events import Events
from vdsm.common.paths import Paths
from vdsm.root.client import Root

log = logging.getLogger("vdsm.network")

# more than a switch takes to be armed, and the steps
CALL_S = 90.0
READ_S = 10.0

APPLIED = crash_point("network.agent.applied", "all is applied, the agent does not wait for a confirmation yet")
CONFIRMED = crash_point("network.agent.confirmed", "confirmed, but nobody told the root helper to keep it")

RunHook = Callable[[str, Any], Awaitable[Any]]


class Network:
    def __init__(self, *, paths: Paths, root: Root, events: Events, run_hook: RunHook) -> None:
        self._root = root
        self._events = events
        self._run_hook = run_hook
        self._confirmed = asyncio.Event()
        self._setup: asyncio.Task[None] | None = None
        self._dirty = False

    @property
    def dirty(self) -> bool:
        """Whether something was changed and not made persistent."""
        return self._dirty

    async def start(self) -> None:
        """Undo what a predecessor left unconfirmed. A helper that is away does not keep the agent from starting."""
        try:
            end = await self._root.call("Network.finish", {}, timeout_s=CALL_S)
            if end:
                log.warning("a change of networks that nobody confirmed was %s", end)
        except AgentError as e:
            log.error("networks: %s", e)

    async def stop(self) -> None:
        """Wait for a setup that runs; it has deadlines of its own."""
        if self._setup is not None:
            with contextlib.suppress(AgentError):
                await asyncio.shield(self._setup)

    async def setup_networks(
        self, networks: Mapping[str, Any], bondings: Mapping[str, Any], options: Mapping[str, Any]
    ) -> None:
        """Raises `SetupRunning`, an InvalidParameter of ``network.errors``, `SetupFailed`, `ConnectivityLost`."""
        if self._setup is not None:
            raise SetupRunning
        self._setup = asyncio.create_task(self._run(networks, bondings, options))
        self._setup.add_done_callback(self._ended)
        await asyncio.shield(self._setup)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._setup = None
        if not task.cancelled():
            task.exception()  # seen here too, when the caller has gone

    def confirm_connectivity(self) -> None:
        """A client reached us. Only counts for a change that is applied and waits."""
        self._confirmed.set()

    async def set_safe_config(self) -> None:
        if self._setup is not None:
            raise SetupRunning
        await self._root.call("Network.persist", {}, timeout_s=READ_S)
        self._dirty = False

    async def capabilities(self) -> dict[str, Any]:
        state, running = _read(await self._root.call("Network.state", {}, timeout_s=READ_S))
        speeds = await asyncio.to_thread(lambda: {link.name: _speed(link.name) for link in state.links})
        return {**report.capabilities(running, state, speeds), "netConfigDirty": str(self._dirty)}

    async def drift(self) -> list[str]:
        """In what the kernel differs from the networks that we run, one sentence each."""
        answer = await self._root.call("Network.state", {}, timeout_s=READ_S)
        return list(answer["drift"])

    async def _run(self, networks: Mapping[str, Any], bondings: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        document = {"networks": dict(networks), "bondings": dict(bondings), "options": dict(options)}
        try:
            with Clock("Host.setupNetworks") as clock:
                await self._change(document, clock)
        except Exception:  # of any kind, for the caller; the hook is owed its end
            await self._after("after_network_setup_fail", document)
            raise
        await self._after("after_network_setup", document)
        self._events.publish("net", "host_conn", "no_id", {})

    async def _change(self, document: dict[str, Any], clock: Clock) -> None:
        with clock.step("check"):
            answer = await self._root.call("Network.state", {}, timeout_s=READ_S)
            check = _Check(*_read(answer), tuple(answer["waiting"]))
            chosen = check(document)
        with clock.step("hook"):
            answer = await self._run_hook("before_network_setup", {"request": document})
            edited = answer.get("request") if isinstance(answer, dict) else None
            if not isinstance(edited, dict):
                raise BadParams("request", "nothing", "before_network_setup must leave an object 'request'")
            if edited != document:
                document = {key: edited.get(key) or {} for key in ("networks", "bondings", "options")}
                chosen = check(document)
        self._dirty = True
        wait_s = chosen.timeout_s if chosen.check else 0.0
        with clock.step("apply"):
            params = {"networks": document["networks"], "bondings": document["bondings"]}
            change = await self._root.call(
                "Network.setup", {**params, "wait_s": wait_s, "persist": chosen.commit}, timeout_s=CALL_S
            )
        APPLIED.reach()
        if chosen.check:
            with clock.step("confirmation"):
                await self._wait(change, chosen.timeout_s)
        CONFIRMED.reach()
        with clock.step("keep"):
            try:
                await self._root.call("Network.keep", {"id": change}, timeout_s=CALL_S)
            except NotPending:
                raise ConnectivityLost(wait_s) from None
        self._dirty = not chosen.commit

    async def _wait(self, change: str, seconds: float) -> None:
        self._confirmed.clear()
        try:
            await asyncio.wait_for(self._confirmed.wait(), seconds)
        except TimeoutError:
            await self._root.call("Network.undo", {"id": change}, timeout_s=CALL_S)
            raise ConnectivityLost(seconds) from None

    async def _after(self, point: str, document: dict[str, Any]) -> None:
        try:
            await self._run_hook(point, {"request": document})
        except AgentError as e:
            log.error("%s", e)


@dataclass(frozen=True)
class _Check:
    """A request, also one that a hook has rewritten, beside what was there when it came."""

    state: State
    running: model.Networks
    waiting: tuple[str, ...]

    def __call__(self, document: Mapping[str, Any]) -> model.Options:
        for key in ("networks", "bondings", "options"):
            if not isinstance(document[key], dict):
                raise BadParams(key, repr(document[key])[:80], "expected an object")
        options = model.parse_options(document["options"])
        request = model.parse(document["networks"], document["bondings"])
        model.check(request, self.running, self.state, self.waiting)
        return options


def _read(answer: Mapping[str, Any]) -> tuple[State, dict[str, model.Network]]:
    return msgspec.convert(answer["state"], State), msgspec.convert(answer["running"], dict[str, model.Network])


def _speed(name: str) -> int:
    try:
        return max(0, int(Path(f"/sys/class/net/{name}/speed").read_text()))
    except (OSError, ValueError):  # a device that has no speed, or is down
        return 0
