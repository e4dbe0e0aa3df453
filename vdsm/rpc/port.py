# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's port: one TCP port, TLS with client certificates, STOMP and HTTP behind it (wire.md 1).

    accepted -> waiting room -> TLS handshake (10 s) -> identity -> first bytes (10 s) -> STOMP session or HTTP

Nothing is parsed before the handshake has proved who is there and the policy has said what that one may do. In plain
mode (``[vars] ssl = false``) nobody is proved and nobody is more than a reader. Without certificates, or with a policy
that can't be read, the port stays closed, which one log line says, and is opened when that is mended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from typing import Any

from vdsm.api.roles import Identity, Role
from vdsm.common import memory, metrics
from vdsm.common.errors import AgentError
from vdsm.common.events import Events
from vdsm.rpc import names, tls
from vdsm.rpc.detection import Spoken, detect
from vdsm.rpc.dispatcher import ENGINE, Caller, Dispatcher
from vdsm.rpc.door import Door
from vdsm.rpc.engine_site import EngineSite
from vdsm.rpc.http import Web
from vdsm.rpc.http_server import HttpServer
from vdsm.rpc.outbox import Outboxes
from vdsm.rpc.pace import Pace
from vdsm.rpc.policy import CertificateRefused, PolicyFile
from vdsm.rpc.refusals import Refusals
from vdsm.rpc.seats import Seats
from vdsm.rpc.stomp_session import StompSession
from vdsm.rpc.waiting_room import WaitingRoom

log = logging.getLogger("vdsm.rpc.port")

HANDSHAKE_S = 10.0
FIRST_BYTES_S = 10.0
LOOK_FOR_CERTIFICATES_S = 5.0
LOOK_AT_POLICY_S = 2.0
BACKLOG = 512
CLOSE_S = 2.0
MANY_GONE = 64
GIVE_BACK_AFTER_S = 2.0
KEPT = 16 << 10

_OPEN = metrics.gauge("vdsm_port_connections", "Open connections on the engine's port")
_WAITING = metrics.gauge("vdsm_port_waiting", "Connections that have not said who they are")


@dataclass(frozen=True)
class Address:
    """Where to listen. ``::`` serves IPv4 too, and is ``0.0.0.0`` on a host without IPv6."""

    host: str
    port: int


class EnginePort:
    name = "engine"

    def __init__(
        self,
        dispatcher: Dispatcher,
        events: Events,
        address: Address,
        *,
        certificates: tls.Certificates | None,
        policy: PolicyFile,
        match_names: bool = False,
    ) -> None:
        """``certificates``: None is plain mode. ``match_names``: a client's common name must be its address's name."""
        self._dispatcher = dispatcher
        self._events = events
        self._address = address
        self._certificates = certificates
        self._policy = policy
        self._match_names = match_names
        self._web = Web(dispatcher, events, self.name, lambda _: None)
        self._site = EngineSite(self._web)
        self._room = WaitingRoom()
        self._seats = Seats()
        self._outboxes = Outboxes()
        self._open: dict[asyncio.BaseTransport, _Peer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusals = Refusals()
        self._gone = 0
        self._giving_back: asyncio.TimerHandle | None = None
        self._door: Door | None = None
        self._opening: asyncio.Task[None] | None = None

    # -- as a `Transport`

    async def start(self) -> None:
        """Returns at once; a port that can't be opened yet is tried again."""
        self._opening = asyncio.get_running_loop().create_task(self._open_when_possible())

    async def stop(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self._giving_back is not None:
            self._giving_back.cancel()
        if self._door is not None:
            self._door.close()
            self._door = None
        await self._web.connections.close()
        for task in list(self._tasks):
            task.cancel()
        for transport in list(self._open):
            transport.close()

    @property
    def port(self) -> int:
        """The port that is listened on; 0 while it is closed."""
        return self._door.port if self._door is not None else 0

    async def _open_when_possible(self) -> None:
        told = ""
        while True:
            try:
                if self._certificates is not None:
                    self._certificates.context()
                    self._policy.current()
                listening = _listen(self._address)
                break
            except (AgentError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    remedy = getattr(error, "remedy", "")
                    log.warning("port %d stays closed: %s. %s", self._address.port, told, remedy)
            await asyncio.sleep(LOOK_FOR_CERTIFICATES_S)
        listening.setblocking(False)
        self._door = Door(listening, self._accept)
        self._door.open()
        kind = "TLS" if self._certificates is not None else "plain, for reading only"
        log.info("listening at %s port %d, %s", *listening.getsockname()[:2], kind)
        if self._certificates is not None:
            await self._keep_roles()

    # -- one connection after the other

    def _accept(self, connection: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw, _ = await asyncio.get_running_loop().connect_accepted_socket(_Accepted, connection)
        address = _peer(raw)
        if self._room.enter(address, raw):
            self._refusals.tell(address, "crowded out by newer ones")
        _WAITING.set(len(self._room))
        try:
            await self._admit(raw, address)
        except (OSError, TimeoutError) as error:
            self._refuse(raw, address, tls.refusal(error))
            # its frames hold what holds it: asyncio's waiter for the handshake
            error.__traceback__ = None
        except AgentError as error:
            self._refuse(raw, address, str(error), type(error).__name__)
        finally:
            self._room.leave(address, raw)
            _WAITING.set(len(self._room))
            if raw.is_closing():
                asyncio.get_running_loop().call_soon(_forget, raw)

    async def _admit(self, raw: asyncio.Transport, address: str) -> None:
        first = _FirstBytes()
        transport: asyncio.Transport = raw
        if self._certificates is not None:
            upgraded = await asyncio.get_running_loop().start_tls(
                raw, first, self._certificates.context(), server_side=True, ssl_handshake_timeout=HANDSHAKE_S
            )
            if upgraded is None:
                raise ConnectionResetError("closed in the handshake")
            transport = upgraded
        else:
            raw.set_protocol(first)
            raw.resume_reading()
        first.bound(transport)
        shown = tls.shown_by(transport)
        if shown is not None and self._match_names and not await names.belongs_to(shown.name, address):
            raise names.ForeignName(shown.name, address)
        self._identify(shown, address)
        try:
            async with asyncio.timeout(FIRST_BYTES_S):
                spoken = await first.spoken
        except TimeoutError:
            self._refuse(transport, address, "no first bytes came")
            return
        if spoken is None or first.is_lost:
            self._refuse(transport, address, "it closed")
            return
        if spoken is Spoken.NEITHER:
            self._refuse(transport, address, "its first bytes are neither STOMP nor HTTP")
            return
        # who was silent for a while may have another role by now, or none
        peer = _Peer(self._identify(shown, address), shown, address)
        loser = self._seats.take(peer.client, transport)
        if loser is not None:
            self._crowd_out(loser)
        self._hand_over(raw, transport, spoken, peer, first)

    def _crowd_out(self, loser: asyncio.BaseTransport) -> None:
        peer = self._open[loser]
        assert isinstance(loser, asyncio.Transport)
        self._refuse(loser, peer.address, "of all clients its own has most connections, and a newcomer came")

    def _identify(self, shown: tls.Shown | None, address: str) -> Identity:
        """With the role that the policy gives at this moment. Raises `CertificateRefused`."""
        if shown is None:
            return Identity(f"tcp {address}", Role.READER, f"tcp:{address}")
        role = self._policy.current().role_of(shown.name, shown.fingerprint)
        if role is None:
            raise CertificateRefused(shown.name)
        return Identity(shown.name or "a certificate without name", role, f"tls:{shown.name}@{address}")

    async def _keep_roles(self) -> None:
        """A role that was taken away ends with the connections that have it, not with their patience."""
        while True:
            await asyncio.sleep(LOOK_AT_POLICY_S)
            policy = self._policy.current()
            for transport, peer in list(self._open.items()):
                shown, role = peer.shown, peer.identity.role
                if shown is not None and policy.role_of(shown.name, shown.fingerprint) is not role:
                    log.warning("%s has not the role %s any more: its connection is closed", peer.identity.name, role)
                    assert isinstance(transport, asyncio.Transport)
                    transport.abort()

    def _hand_over(
        self, raw: asyncio.Transport, transport: asyncio.Transport, spoken: Spoken, peer: _Peer, first: _FirstBytes
    ) -> None:
        caller = Caller(peer.identity, "stomp" if spoken is Spoken.STOMP else self.name, ENGINE)
        protocol: asyncio.Protocol
        if spoken is Spoken.STOMP:
            # an engine calls as fast as it likes; whoever comes in plain mode may be anybody
            pace = Pace() if peer.shown is None else None
            protocol = StompSession(self._dispatcher, self._events, caller, self._outboxes, self._refusals, pace)
        else:
            site, web = self._site, self._web
            protocol = HttpServer(lambda request: site.serve(request, caller), web.told, web.defects)()
        watched = _Watched(protocol, lambda: self._closed(raw, transport, peer))
        self._open[transport] = peer
        _OPEN.set(len(self._open))
        transport.set_protocol(watched)
        first.heir = watched
        transport.resume_reading()
        watched.connection_made(transport)
        if first.data:
            watched.data_received(bytes(first.data))
        if first.ended:
            watched.eof_received()

    def _closed(self, raw: asyncio.BaseTransport, transport: asyncio.BaseTransport, peer: _Peer) -> None:
        self._seats.leave(peer.client, transport)
        self._open.pop(transport, None)
        _OPEN.set(len(self._open))
        _forget(raw)
        self._gone += 1
        if self._gone == MANY_GONE:
            self._giving_back = asyncio.get_running_loop().call_later(GIVE_BACK_AFTER_S, self._give_back)

    def _give_back(self) -> None:
        """The buffers of many connections lie between what stays: freed, but the process's until somebody asks."""
        self._gone = 0
        asyncio.get_running_loop().run_in_executor(None, memory.give_back)

    def _refuse(self, transport: asyncio.Transport, address: str, why: str, reason: str = "") -> None:
        self._refusals.tell(address, why, reason)
        transport.abort()


@dataclass(frozen=True)
class _Peer:
    identity: Identity
    shown: tls.Shown | None
    address: str

    @property
    def client(self) -> str:
        """Who shares connections: all that show one certificate, from wherever; in plain mode an address."""
        return self.shown.fingerprint if self.shown is not None else self.address


class _Accepted(asyncio.Protocol):
    """A fresh connection: not a byte is read before the handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()


class _FirstBytes(asyncio.Protocol):
    """Collects until the protocol is known; ``spoken`` is None when the connection closed before.

    With more than `KEPT` bytes no more is read until somebody takes over, however long names are looked up.
    TLS may have decided already whom it tells that the connection is gone: that word goes on to the ``heir``.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.is_lost = False
        self._transport: asyncio.Transport | None = None
        self.heir: asyncio.Protocol | None = None
        self.spoken: asyncio.Future[Spoken | None] = asyncio.get_running_loop().create_future()

    def bound(self, transport: asyncio.Transport) -> None:
        """What may be paused: TLS has its transport only after the first bytes may have come."""
        self._transport = transport
        self._pause_when_full()

    def data_received(self, data: bytes) -> None:
        self.data += data
        # heart-beats are for nobody yet: what is undecided stays a few bytes, however many come
        del self.data[: len(self.data) - len(self.data.lstrip(b"\r\n"))]
        self._settle(detect(bytes(self.data[:64])))
        self._pause_when_full()

    def eof_received(self) -> bool:
        self.ended = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if not self.spoken.done():
            self.spoken.set_result(None)
        if self.heir is not None:
            self.heir.connection_lost(error)

    def _settle(self, spoken: Spoken | None) -> None:
        if spoken is not None and not self.spoken.done():
            self.spoken.set_result(spoken)

    def _pause_when_full(self) -> None:
        if self._transport is not None and len(self.data) > KEPT and not self._transport.is_closing():
            self._transport.pause_reading()


class _Watched(asyncio.Protocol):
    """A protocol, and somebody who wants to know when its connection is gone."""

    def __init__(self, inner: asyncio.Protocol, closed: Any) -> None:
        self._inner = inner
        self._closed = closed
        for name in ("connection_made", "data_received", "eof_received", "pause_writing", "resume_writing"):
            setattr(self, name, getattr(inner, name))

    def connection_lost(self, error: Exception | None) -> None:
        self._closed()
        self._inner.connection_lost(error)


def _listen(address: Address) -> socket.socket:
    if address.host == "::" and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                (address.host, address.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
            )
        except OSError as error:
            log.info("no IPv6 here (%s): IPv4 only", error)
    host = "0.0.0.0" if address.host == "::" else address.host  # noqa: S104 - whoever is served proves who they are
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, address.port), family=family, backlog=BACKLOG)


def _peer(transport: asyncio.Transport) -> str:
    """The peer's address; one of IPv4 that came through the dual stack as IPv4."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]).removeprefix("::ffff:") if peer else "?"


def _forget(closed: asyncio.BaseTransport) -> None:
    """asyncio's transport refers to a method of its own, and so to itself: it, its socket's object and what hangs on
    them would stay until a full collection.
    """
    vars(closed)["_read_ready_cb"] = _nothing


def _nothing() -> None:
    pass
