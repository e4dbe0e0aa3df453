# SPDX-License-Identifier: GPL-2.0-or-later
"""One message in, one message out.

jsonrpcserver calls each member of a message alone. What it would decide otherwise than the specification or this agent
(batches, parameters, error texts) is decided here: messages are decoded, split and checked before, verbs get their
parameters raw and convert them by their types, errors are made in `vdsm.api.errors`.

A call runs in a task of its own: a closed connection ends the waiting for an answer, never the call. Access is
decided after the message was parsed and before its parameters are converted. What came as a secret is known while the
call runs, and stands in no log line and no error of it (`vdsm.common.masking`). No answer to one below admin has any.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from jsonrpcserver import Error, Success
from jsonrpcserver.async_dispatcher import call
from jsonrpcserver.request import Request
from jsonrpcserver.sentinels import NOID
from oslash.either import Left

from vdsm.api import params as api_params
from vdsm.api.call import Agent, Call
from vdsm.api.defects import Defects
from vdsm.api.errors import (
    INTERNAL_ERROR,
    NoSuchVerb,
    NotBuilt,
    RecoveryInProgress,
    SubjectHangs,
    TooManyCalls,
    VmHangs,
    WireError,
    to_wire,
)
from vdsm.api.params import Unknown
from vdsm.api.registry import Verb, Verbs
from vdsm.api.roles import AccessDenied, Identity
from vdsm.api.types import Params
from vdsm.common import logs, masking, metrics
from vdsm.common.errors import AgentError
from vdsm.rpc import audit, protocol, shown
from vdsm.rpc.order import Order
from vdsm.rpc.turns import Kind, LineFull, Turn, Turns

log = logging.getLogger("vdsm.rpc")

# reads and changes have turns of their own: changes that hang on a dead storage never delay monitoring.
# One thing that hangs holds so many of a client's calls, and a verb that is about nothing so many of its own
READS_OF_SUBJECT, CHANGES_OF_SUBJECT = 8, 4
READS_OF_VERB, CHANGES_OF_VERB = 32, 16
# Wide enough for 128 VMs that hang at once. They bound memory: a call that waits costs some 6 KiB and its parameters,
# whether it waits for a turn or in the middle of its work. Work itself is bounded below (threads, helpers, locks)
RUNNING, RUNNING_PER_CLIENT = 2048, 512
MAX_FLOW_ID = 64

_CALLS = metrics.counter("vdsm_rpc_calls", "Calls by verb and result", ("verb", "result"))
_SECONDS = metrics.histogram("vdsm_rpc_call_seconds", "Duration of calls", ("verb",))
# the figures of one verb: looking them up costs more than counting
_called = functools.cache(_CALLS.labels)
_took = functools.cache(_SECONDS.labels)
_FREE: contextlib.nullcontext[None] = contextlib.nullcontext()  # of a call in no line
_numbers = itertools.count(secrets.randbits(32))


@dataclass(frozen=True)
class Policy:
    """How a way in treats its callers: `OWN` or `ENGINE`."""

    unknown: Unknown
    # every verb answers 99 until VMs are found again: an engine must not take a host for one without VMs
    hides_recovery: bool
    # the field's Python client sends each call as a batch of one, and takes no array for an answer
    unwraps_single: bool


OWN = Policy(Unknown.REFUSE, hides_recovery=False, unwraps_single=False)
ENGINE = Policy(Unknown.IGNORE, hides_recovery=True, unwraps_single=True)


@dataclass(frozen=True)
class Caller:
    """Who sent a message, on what: made by the transport. ``order``: of a connection that sends without waiting."""

    identity: Identity
    transport: str
    policy: Policy = OWN
    flow_id: str = ""
    order: Order | None = None


@dataclass
class _Member:
    """One call on its way: the context that jsonrpcserver hands to the route."""

    caller: Caller
    name: str
    flow_id: str
    unread: Unread = None
    error: WireError | None = None
    forbidden: bool = False


T = TypeVar("T")
Unread = asyncio.Future[None] | None  # done when what came before on the connection is decoded
Route = Callable[..., Awaitable[Any]]
Done = Callable[[bytes | None], None]


class _Routes(dict[str, Route]):
    """Verb name -> coroutine function. An unknown name gets a route too, so that one place makes all errors."""

    def __init__(self, dispatcher: Dispatcher, verbs: Verbs) -> None:
        super().__init__({name: dispatcher.route(entry) for name, entry in verbs.items()})
        self._unknown = dispatcher.route(None)

    def __missing__(self, name: str) -> Route:
        return self._unknown


class Dispatcher:
    def __init__(
        self,
        agent: Agent,
        verbs: Verbs,
        *,
        ready: Callable[[], bool] = lambda: True,
        started: Callable[[], bool] = lambda: True,
    ) -> None:
        """``started``: every part runs; ``ready``: VMs are found again too."""
        self._agent = agent
        self._ready = ready
        self._started = started
        self._routes = _Routes(self, verbs)
        self._running: set[asyncio.Task[Any]] = set()
        self._reads = Turns(RUNNING, RUNNING_PER_CLIENT)
        self._changes = Turns(RUNNING, RUNNING_PER_CLIENT)
        self.defects = Defects()
        self._forbidden = audit.Forbidden()
        self._decoding = asyncio.Lock()  # one large message at a time: bounds memory

    async def answer(self, data: bytes, caller: Caller) -> bytes | None:
        """The reply to a message, or None when it asks for none."""
        try:
            message = await self._decode(data)
        except protocol.Refused as refused:
            return protocol.failure(None, refused.error)
        if not isinstance(message, list):
            return await asyncio.shield(self._start(self._serve(message, caller)))
        if caller.order is None:
            caller = replace(caller, order=Order())
        return await asyncio.shield(self._joined(self._members(message, caller, None), caller.policy))

    def begin(self, data: bytes, caller: Caller, done: Done) -> None:
        """As `answer`, for who has a place for the reply and need not wait for it: ``done`` gets it.

        Calls begin in the order in which they came here, those of a batch in its order.
        """
        if len(data) > protocol.LARGE:
            decoded = asyncio.get_running_loop().create_future()
            if caller.order is not None:
                caller.order.unread = decoded
            self._start(self._begin_large(data, caller, done, decoded))
            return
        try:
            message = protocol.decode(data)
        except protocol.Refused as refused:
            done(protocol.failure(None, refused.error))
            return
        unread = caller.order.unread if caller.order is not None else None
        self._begin(message, caller, done, None if unread is None or unread.done() else unread)

    def _begin(self, message: Any, caller: Caller, done: Done, unread: Unread) -> None:
        if isinstance(message, list) and len(message) == 1 and caller.policy.unwraps_single:
            (message,) = message
        if isinstance(message, list):
            self._start(self._collect(self._members(message, caller, unread), caller.policy, done))
        else:
            self._start(self._serve_later(message, caller, unread, done))

    async def _begin_large(self, data: bytes, caller: Caller, done: Done, decoded: asyncio.Future[None]) -> None:
        try:
            # one after the other, and in order: what came before it is decoded when this is
            self._begin(await self._decode(data), caller, done, None)
        except protocol.Refused as refused:
            done(protocol.failure(None, refused.error))
        finally:
            decoded.set_result(None)  # whoever waits comes after the calls that have just been started

    def _members(self, batch: list[Any], caller: Caller, unread: Unread) -> list[asyncio.Task[bytes | None]]:
        return [self._start(self._serve(member, caller, unread)) for member in batch]

    async def _joined(self, members: list[asyncio.Task[bytes | None]], policy: Policy) -> bytes | None:
        replies = [reply for reply in await asyncio.gather(*members) if reply is not None]
        if policy.unwraps_single and len(members) == 1:
            return replies[0] if replies else None
        return protocol.batch(replies) if replies else None

    async def _collect(self, members: list[asyncio.Task[bytes | None]], policy: Policy, done: Done) -> None:
        done(await self._joined(members, policy))

    async def _serve_later(self, member: Any, caller: Caller, unread: Unread, done: Done) -> None:
        done(await self._serve(member, caller, unread))

    async def drain(self, timeout_s: float) -> None:
        """Wait for running calls; what is not done after ``timeout_s`` is told that the agent stops."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=timeout_s)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d calls were still running after %g s", len(late), timeout_s)
                await asyncio.wait(late, timeout=1.0)

    async def _decode(self, data: bytes) -> Any:
        if len(data) <= protocol.LARGE:
            return protocol.decode(data)
        async with self._decoding:
            return await asyncio.to_thread(protocol.decode, data)

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _serve(self, member: Any, caller: Caller, unread: Unread = None) -> bytes | None:
        """In a task of its own: what is set here is set for this call, and for what it starts."""
        try:
            protocol.check(member)
        except protocol.Refused as refused:
            return protocol.failure(None, refused.error)
        name, identifier = member["method"], member.get("id", NOID)
        params = member.get("params", ())
        context = _Member(caller, name, _flow_id(member.get("flow_id") or caller.flow_id), unread)
        logs.flow_id.set(context.flow_id)
        route = self._routes[name]
        try:
            response = await call(Request(name, params, identifier), context, route)
        except asyncio.CancelledError as e:  # only `drain` cancels: the caller is told
            context.error = context.error or to_wire(e, api_params.printable(name), self.defects)
            response = None
        return None if identifier is NOID else await self._encode(identifier, response, context)

    async def _encode(self, identifier: Any, response: Any, context: _Member) -> bytes:
        if context.error is not None:
            return protocol.failure(identifier, context.error)
        if isinstance(response, Left):  # jsonrpcserver found something that the checks before it let pass
            log.error("%s was refused by the dispatcher: %r", api_params.printable(context.name), response)
            return protocol.failure(identifier, WireError(INTERNAL_ERROR, "Internal error"))
        try:
            return await shown.result(identifier, response._value.result, context.caller.identity.role)
        except (TypeError, ValueError) as e:
            return protocol.failure(identifier, to_wire(e, context.name, self.defects))

    def route(self, entry: Verb | None) -> Route:
        """The function that jsonrpcserver calls; it takes whatever parameters came."""

        async def run(context: _Member, /, *positional: Any, **named: Any) -> Any:
            raw: Any = list(positional) if positional else named
            started = time.monotonic()
            try:
                value = await self._call(entry, context, raw)
            except (Exception, asyncio.CancelledError) as e:  # noqa: BLE001 - every failure becomes an answer here
                context.error = error = _masked(to_wire(e, api_params.printable(context.name), self.defects))
                outcome, reply = f"failed with code {error.code}: {error.message}", Error(error.code, error.message)
            else:
                outcome, reply = "done", Success(value)
            if entry is not None:
                _called(entry.name, "failed" if context.error else "done").inc()
                _took(entry.name).observe(time.monotonic() - started)
                if entry.changes:
                    record = self._forbidden.record if context.forbidden else audit.record
                    record(entry.name, context.caller.identity, context.caller.transport, raw, outcome)
            return reply

        return run

    async def _call(self, entry: Verb | None, context: _Member, raw: Any) -> Any:
        caller = context.caller
        if entry is None:
            raise NoSuchVerb(api_params.printable(context.name))
        if not caller.identity.may_call(entry.role):
            context.forbidden = True
            raise AccessDenied(caller.identity.name, caller.identity.role, entry.name, entry.role)
        if not self._served(entry, caller.policy):
            raise RecoveryInProgress()
        masking.know(masking.secrets_in(raw))  # of who may call at all: looking through them takes time
        params = api_params.convert(entry.name, entry.params, raw, caller.policy.unknown)
        if entry.run is None:
            raise NotBuilt(entry.name)
        about = Call(self._agent, caller.identity, context.flow_id, caller.transport)
        if entry.urgent:
            return await entry.run(about, params)
        if context.unread is not None and entry.changes:
            await asyncio.wait([context.unread])
        order = caller.order
        lines = entry.line(params) if order is not None and entry.line is not None else ()
        place: contextlib.AbstractAsyncContextManager[None] = _FREE
        if order is not None and lines:
            place = in_line = order.place(lines, entry.name, overtakes=entry.overtakes)
            about.in_order = in_line.give_up
        try:
            async with place, self._turn(entry, caller.identity.client, params):
                return await entry.run(about, params)
        except LineFull as full:
            raise _refusal(full, caller.identity.name) from None

    def hides_from(self, caller: Caller) -> bool:
        """Whether the caller is told to wait until VMs are found again; until then it hears no events, either."""
        return self._hides(caller.policy)

    def _hides(self, policy: Policy) -> bool:
        return policy.hides_recovery and not self._ready()

    def _served(self, entry: Verb, policy: Policy) -> bool:
        """Reads are there from the first moment; a change waits for the parts, an engine for the VMs too."""
        if entry.early:
            return True
        if self._hides(policy):
            return False
        return self._started() or not entry.changes

    def _turn(self, entry: Verb, client: str, params: Params) -> Turn:
        names = entry.subject(params) if entry.subject is not None else ()
        if entry.changes:
            turns, width = self._changes, CHANGES_OF_SUBJECT if names else CHANGES_OF_VERB
        else:
            turns, width = self._reads, READS_OF_SUBJECT if names else READS_OF_VERB
        about = names[0] if names else entry.name
        kind = Kind.OVERTAKING if entry.overtakes else Kind.VITAL if entry.vital else Kind.COMMON
        return turns.turn(client, about, entry.name, width, kind)


def _refusal(full: LineFull, who: str) -> AgentError:
    if not full.about:
        return TooManyCalls(who, full.waiting)
    kind = VmHangs if "VM " in full.about else SubjectHangs
    return kind(api_params.printable(full.about), full.verb, round(full.for_s), full.waiting)


def _masked(error: WireError) -> WireError:
    return WireError(error.code, masking.hide(error.message), masking.hide_in(error.data))


def _flow_id(asked: object) -> str:
    if isinstance(asked, str) and 0 < len(asked) <= MAX_FLOW_ID and asked.isprintable():
        return asked
    return f"{next(_numbers) & 0xFFFFFFFF:08x}"
