# SPDX-License-Identifier: GPL-2.0-or-later
"""One STOMP connection: subscriptions, calls, events and heart-beats (wire.md 2 to 4).

    client                          agent
    CONNECT heart-beat:0,15000  ->
                                <-  CONNECTED heart-beat:15000,0    (a line feed at least every 15 s from now)
    SUBSCRIBE jms.topic...      ->                                  (before CONNECT, too)
    SEND to a request queue     ->  the call runs
                                <-  MESSAGE to the SEND's reply-to

A reply goes to the connection that asked, and to no other: the engine knows its replies by their ids and does not miss
the others', and nobody reads what another one asked. Events go to every connection that subscribed to their queue.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from vdsm.common import metrics, stomp
from vdsm.common.events import Events, Subscription
from vdsm.common.stomp import Frame, NotStomp
from vdsm.rpc import protocol, shown
from vdsm.rpc.dispatcher import ENGINE, Caller, Dispatcher
from vdsm.rpc.intake import Intake, Taker
from vdsm.rpc.order import Order
from vdsm.rpc.outbox import Outbox, Outboxes
from vdsm.rpc.pace import Pace
from vdsm.rpc.refusals import Refusals
from vdsm.rpc.room import Room

REQUESTS = ("jms.topic.vdsm_requests", "jms.topic.vdsm_irs_requests")
_BELOW_REQUESTS = tuple(f"{queue}." for queue in REQUESTS)
EVENTS = "jms.queue.events"
VERSION = "1.2"
MIN_BEAT_S = 1.0
LIMITS = stomp.Limits(body_bytes=protocol.MAX_MESSAGE)
# sooner than promised: the clients count from what they received
BEAT_EARLY = 0.9
# a beat is sent when its time has come, not before, and then it travels: STOMP 1.2 wants receivers to grant a margin
LEAST_MARGIN_S = 2.0
# as many as may wait of one client (`vdsm.rpc.turns`): a connection alone is slowed, never refused
MAX_CALLS = 1000
MAX_SUBSCRIPTIONS = 64
MAX_EVENTS = 1000
# the engine's parser wants a whole header block within 1024 bytes: ids and queue names that fit
MAX_NAME = 200
MAX_HEAD = 1024 - len("content-length:12345678\n\n")
FLOW_HEADER = "ovirtCorrelationId"

_FRAMES = metrics.counter("vdsm_stomp_frames", "STOMP frames received by command", ("command",))
_came = functools.cache(_FRAMES.labels)  # looking it up costs more than counting
_DROPPED = metrics.counter("vdsm_stomp_dropped", "STOMP connections that the agent dropped, by reason", ("reason",))


class _Subscribed:
    """A subscription, and the head of its messages: all but their length."""

    def __init__(self, destination: str, identifier: str) -> None:
        self.destination = destination
        headers = {"destination": destination, "content-type": "application/json", "subscription": identifier}
        self._head = stomp.head(Frame("MESSAGE", headers))

    @property
    def fits(self) -> bool:
        return len(self._head) <= MAX_HEAD

    def message(self, body: bytes) -> bytes:
        return stomp.with_body(self._head, body)


class StompSession(asyncio.Protocol):
    """Takes over an identified connection once its first bytes were STOMP's."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        events: Events,
        caller: Caller,
        outboxes: Outboxes,
        refusals: Refusals,
        pace: Pace | None,
    ) -> None:
        """``pace``: None for who has proved who it is."""
        self._dispatcher = dispatcher
        self._events = events
        self._caller = replace(caller, order=Order())
        self._outboxes = outboxes
        self._refusals = refusals
        self._pace = pace
        self._subscriptions: dict[str, _Subscribed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._telling: Subscription | None = None
        self._beats: list[asyncio.TimerHandle] = []
        self._beat_s = self._silence_s = 0.0

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(transport, self._does_not_read, self._outboxes)
        taker = Taker(self._take, self._refuse_stream, lambda: self._room.is_open)
        self._intake = Intake(transport, taker, LIMITS, self._pace)
        self._room = Room(MAX_CALLS, self._intake.go_on)

    def data_received(self, data: bytes) -> None:
        self._intake.add(data)

    def pause_writing(self) -> None:
        self._outbox.pause()

    def resume_writing(self) -> None:
        self._outbox.resume()

    def connection_lost(self, error: Exception | None) -> None:
        self._intake.close()
        self._room.close()
        self._outbox.close()
        for timer in self._beats:
            timer.cancel()
        if self._telling is not None:
            self._telling.close()
        for task in self._tasks:  # they only wait and send: the calls are the dispatcher's
            task.cancel()

    # -- frames

    def _refuse_stream(self, error: NotStomp) -> None:
        self._drop("malformed", str(error))

    def _take(self, frame: Frame) -> None:
        _came(frame.command).inc()
        action = _ACTIONS.get(frame.command)
        if action is None:
            self._drop("command", f"it sent {frame.command}")
        else:
            action(self, frame)

    def _connect(self, frame: Frame) -> None:
        if VERSION not in frame.headers.get("accept-version", "").split(","):
            self._refuse(f"Only STOMP {VERSION} is spoken here")
            return
        sends_s, wants_s = _beats(frame.headers.get("heart-beat", "0,0"))
        answer = f"{round(wants_s * 1000)},{round(sends_s * 1000)}"
        self._write(Frame("CONNECTED", {"version": VERSION, "heart-beat": answer}))
        self._beat_s, self._silence_s = wants_s * BEAT_EARLY, silence_s(sends_s)
        for timer in self._beats:
            timer.cancel()
        self._beats = []
        if self._beat_s:
            self._beats.append(self._loop.call_later(self._beat_s, self._beat))
        if self._silence_s:
            self._beats.append(self._loop.call_later(self._silence_s, self._listen))

    def _subscribe(self, frame: Frame) -> None:
        identifier, destination = frame.headers.get("id", ""), frame.headers.get("destination", "")
        subscribed = _Subscribed(destination, identifier)
        if not identifier or not destination:
            self._refuse("SUBSCRIBE needs the headers id and destination")
        elif identifier in self._subscriptions:
            self._refuse(f"There is a subscription {identifier} on this connection")
        elif len(identifier) > MAX_NAME or len(destination) > MAX_NAME or not subscribed.fits:
            self._refuse(f"Ids and destinations have at most {MAX_NAME} characters, and {MAX_HEAD} bytes together")
        elif len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            self._refuse(f"A connection has at most {MAX_SUBSCRIPTIONS} subscriptions")
        else:
            self._subscriptions[identifier] = subscribed
            if destination == EVENTS and self._telling is None:
                self._telling = self._events.subscribe(self._caller.identity.name, max_queue=MAX_EVENTS)
                self._start(self._tell(self._telling))

    def _unsubscribe(self, frame: Frame) -> None:
        identifier = frame.headers.get("id")
        if identifier is None:
            self._refuse("UNSUBSCRIBE needs the header id")
            return
        self._subscriptions.pop(identifier, None)
        if self._telling is not None and not any(to.destination == EVENTS for to in self._subscriptions.values()):
            self._telling.close()
            self._telling = None

    def _send(self, frame: Frame) -> None:
        destination = frame.headers.get("destination", "")
        if destination not in REQUESTS and not destination.startswith(_BELOW_REQUESTS):
            self._refuse("Subscription not available")
            return
        caller = self._caller
        if FLOW_HEADER in frame.headers:
            caller = Caller(caller.identity, caller.transport, ENGINE, frame.headers[FLOW_HEADER], caller.order)
        number = self._room.enter(len(frame.body))
        reply_to = frame.headers.get("reply-to", "")
        # a call may outlive its connection, and keeps nothing of it
        session = weakref.ref(self)

        def answered(reply: bytes | None) -> None:
            if (still := session()) is not None:
                still._answered(number, reply_to, reply)

        self._dispatcher.begin(frame.body, caller, answered)

    def _disconnect(self, frame: Frame) -> None:
        receipt = frame.headers.get("receipt")
        if receipt is None or len(receipt) > MAX_NAME:
            self._transport.close()
        else:
            self._write(Frame("RECEIPT", {"receipt-id": receipt}))

    # -- calls and events

    def _answered(self, number: int, reply_to: str, reply: bytes | None) -> None:
        if self._transport.is_closing():
            return
        self._room.answered(number)
        self._intake.go_on()
        if reply is None:
            return
        if reply.startswith(b"["):
            # an array of several replies is more than the clients of the field take: each one by itself
            for one in msgspec.json.decode(reply, type=list[msgspec.Raw]):
                self._reply(reply_to, bytes(one))
        else:
            self._reply(reply_to, reply)

    async def _tell(self, subscription: Subscription) -> None:
        async for event in subscription:
            if self._dispatcher.hides_from(self._caller):
                continue
            body = shown.event(event, self._caller.identity.role)
            if body is not None:
                self._event(body)
        if subscription.overflowed:
            self._drop("slow", "it does not read its events")

    def _event(self, body: bytes) -> None:
        """To each subscription of this connection to the events, as VDSM delivers it."""
        for subscribed in self._subscriptions.values():
            if subscribed.destination == EVENTS:
                self._outbox.send(subscribed.message(body))

    def _reply(self, reply_to: str, body: bytes) -> None:
        """Once, however many subscriptions this connection has to where it wants replies: to the newest."""
        for subscribed in reversed(self._subscriptions.values()):
            if subscribed.destination == reply_to:
                self._outbox.send(subscribed.message(body))
                return

    # -- writing

    def _write(self, frame: Frame) -> None:
        if not self._transport.is_closing():
            self._outbox.send(stomp.encode(frame))

    def _refuse(self, reason: str) -> None:
        self._write(Frame("ERROR", {"content-type": "text/plain"}, reason.encode()))

    def _does_not_read(self, why: str) -> None:
        self._drop("slow", f"it does not read: {why}")

    def _drop(self, reason: str, why: str) -> None:
        if not self._transport.is_closing():
            self._refusals.dropped(self._caller.identity.name, reason, why)
            _DROPPED.labels(reason).inc()
        self._transport.abort()

    def _start(self, work: asyncio._CoroutineLike[None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- heart-beats

    def _beat(self) -> None:
        quiet_s = self._loop.time() - self._outbox.last_write
        if quiet_s >= self._beat_s:
            self._outbox.send(stomp.HEART_BEAT)
            quiet_s = 0
        self._beats.append(self._loop.call_later(self._beat_s - quiet_s, self._beat))
        del self._beats[:-2]

    def _listen(self) -> None:
        quiet_s = self._intake.quiet_s
        if quiet_s >= self._silence_s:
            self._drop("silent", f"nothing came for {quiet_s:.1f} s, {self._silence_s:g} s were granted")
            return
        self._beats.append(self._loop.call_later(max(0.1, self._silence_s - quiet_s), self._listen))
        del self._beats[:-2]


_ACTIONS: Mapping[str, Callable[[StompSession, Frame], None]] = {
    "CONNECT": StompSession._connect,
    "STOMP": StompSession._connect,
    "SUBSCRIBE": StompSession._subscribe,
    "UNSUBSCRIBE": StompSession._unsubscribe,
    "SEND": StompSession._send,
    "DISCONNECT": StompSession._disconnect,
}


def silence_s(promised_s: float) -> float:
    """How long a client may say nothing that promised a beat so often: twice that, and a margin for short ones."""
    return promised_s + max(promised_s, LEAST_MARGIN_S) if promised_s else 0.0


def _beats(text: str) -> tuple[float, float]:
    """Seconds between what the client sends and what it wants; 0: none. Bad text means none (wire.md 2.4)."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        return 0.0, 0.0
    sends_s, wants_s = (min(int(part), 10**9) / 1000 for part in parts)
    return (max(sends_s, MIN_BEAT_S) if sends_s else 0.0), (max(wants_s, MIN_BEAT_S) if wants_s else 0.0)
