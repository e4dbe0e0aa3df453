# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client sees that sends without waiting: order where order counts, and nothing held up by what hangs."""

import asyncio
import contextlib
import json

import aiohttp
import pytest

from tests.peers import PythonPeer
from vdsm.api.roles import Identity, Role
from vdsm.rpc import protocol, room, stomp_session, turns, websocket
from vdsm.rpc.dispatcher import Caller

VM = "6a3b1f0e-0000-4000-8000-00000000000{}"
IN_ORDER = ["VM.pause begins", "VM.pause ends", "VM.cont begins", "VM.cont ends"]


def call(verb, number=1, identifier=None, filler=0):
    params = {"vmID": VM.format(number) if number < 10 else VM.format("")[:-2] + f"{number:03}"}
    message = {"jsonrpc": "2.0", "method": verb, "params": params, "id": identifier or verb, "filler": "x" * filler}
    return json.dumps(message).encode()


PING = b'{"jsonrpc":"2.0","method":"Host.ping2","id":"ping"}'


class OverStomp:
    """What both kinds of connection do: send without waiting, and hear replies."""

    def __init__(self, peer):
        self._peer = peer

    async def send(self, *messages):
        self._peer.send(*messages)

    async def reply(self):
        return await self._peer.message()


class OverWebSocket:
    def __init__(self, socket):
        self._socket = socket

    async def send(self, *messages):
        for message in messages:
            await self._socket.send_bytes(message)

    async def reply(self):
        return json.loads(await self._socket.receive_str())


async def replies(connection, *identifiers):
    """Until those came: by id."""
    found = {}
    async with asyncio.timeout(5):
        while not set(identifiers) <= set(found):
            reply = await connection.reply()
            found[reply["id"]] = reply
    return found


@contextlib.asynccontextmanager
async def over_stomp(server, port, pki):
    peer = PythonPeer(port.port, pki.client())
    await peer.connect()
    yield OverStomp(peer)
    await peer.close()


@contextlib.asynccontextmanager
async def over_websocket(server, port, pki):
    connector = aiohttp.UnixConnector(server.path)
    async with (
        aiohttp.ClientSession(connector=connector, base_url="http://agent") as session,
        session.ws_connect("/jsonrpc") as socket,
    ):
        yield OverWebSocket(socket)


@pytest.fixture(params=[over_stomp, over_websocket])
async def connection(request, server, port, pki):
    async with request.param(server, port, pki) as connection:
        yield connection


def hold(server, *verbs):
    for verb in verbs:
        server.held[verb] = asyncio.Event()


async def test_the_later_of_two_changes_of_one_vm_begins_when_the_earlier_has_ended(connection, server):
    hold(server, "VM.pause")
    await connection.send(call("VM.pause"), call("VM.cont"), PING)
    await replies(connection, "ping")
    assert server.done == IN_ORDER[:1]
    server.held["VM.pause"].set()
    await replies(connection, "VM.pause", "VM.cont")
    assert server.done == IN_ORDER


async def test_nobody_waits_behind_a_call_whose_work_is_in_order_already(connection, server):
    hold(server, "VM.pause")
    server.in_order.add("VM.pause")
    await connection.send(call("VM.pause"), call("VM.cont"))
    await replies(connection, "VM.cont")
    assert server.done == ["VM.pause begins", "VM.cont begins", "VM.cont ends"]
    server.held["VM.pause"].set()
    await replies(connection, "VM.pause")


async def test_a_batch_counts_in_its_order(connection, server):
    hold(server, "VM.pause")
    await connection.send(b"[" + call("VM.pause") + b"," + call("VM.cont", identifier="one") + b"]")
    await connection.send(call("VM.cont", identifier="two"), PING)
    await replies(connection, "ping")
    assert server.done == IN_ORDER[:1]
    server.held["VM.pause"].set()
    await connection_done(server, 6)
    assert server.done == [*IN_ORDER, *IN_ORDER[2:]]


async def connection_done(server, count):
    async with asyncio.timeout(5):
        while len(server.done) < count:
            await asyncio.sleep(0.005)


async def test_a_batch_of_a_single_request_counts_in_its_order(server):
    hold(server, "VM.pause")
    asking = asyncio.create_task(server.ask(b"[" + call("VM.pause") + b"," + call("VM.cont") + b"]"))
    await connection_done(server, 1)
    await asyncio.sleep(0.02)
    assert server.done == IN_ORDER[:1]
    server.held["VM.pause"].set()
    assert len(json.loads(await asking)) == 2
    assert server.done == IN_ORDER


async def test_what_comes_in_a_large_message_keeps_its_place(connection, server):
    large = call("VM.pause", filler=protocol.LARGE)
    await connection.send(call("VM.create"), large, call("VM.cont"), call("VM.destroy"), PING)
    await replies(connection, "VM.create", "VM.pause", "VM.cont", "VM.destroy", "ping")
    begun = [what.split()[0] for what in server.done if "begins" in what]
    assert begun[0] == "VM.create"
    assert begun.index("VM.pause") < begun.index("VM.cont")
    assert begun.index("VM.pause") < begun.index("VM.destroy")


async def test_a_large_message_that_is_none_holds_nobody_up(connection, server):
    await connection.send(b"[" * (protocol.LARGE + 1), call("VM.pause"))
    assert "error" not in (await replies(connection, None, "VM.pause"))["VM.pause"]


async def test_hung_verbs_do_not_hold_back_a_destroy_of_their_vm(connection, server):
    hold(server, "VM.freeze", "VM.migrationCreate")
    await connection.send(*[call("VM.freeze", identifier=f"f{n}") for n in range(15)], call("VM.migrationCreate"))
    await connection.send(call("VM.destroy"), call("VM.thaw"))
    assert all("error" not in reply for reply in (await replies(connection, "VM.destroy", "VM.thaw")).values())
    assert server.done.count("VM.freeze begins") == 1


async def test_thirty_vms_that_hang_delay_no_verb_of_another(connection, server):
    hold(server, "VM.migrationCreate")
    hung = [call("VM.migrationCreate", number, f"{number} {n}") for number in range(100, 130) for n in range(4)]
    hold(server, "VM.freeze")
    hung += [call("VM.freeze", number, f"{number} f{n}") for number in range(100, 130) for n in range(2)]
    await connection.send(*hung)
    await connection.send(call("VM.pause"), call("VM.destroy", 2), call("VM.getStats", 100))
    await replies(connection, "VM.pause", "VM.destroy", "VM.getStats")


async def test_a_pause_of_one_vm_waits_for_none_of_another(connection, server):
    hold(server, "VM.freeze", "VM.create")
    await connection.send(call("VM.create"), call("VM.pause", 2))
    await replies(connection, "VM.pause")


async def test_reads_are_never_held_up_by_a_change(connection, server):
    hold(server, "VM.pause")
    await connection.send(call("VM.pause"), call("VM.cont"), call("VM.getStats"))
    await replies(connection, "VM.getStats")
    assert "VM.cont begins" not in server.done


async def test_who_calls_back_on_a_connection_of_its_own_waits_for_no_line(connection, server, port, pki):
    hold(server, "VM.pause")
    await connection.send(call("VM.pause"))
    await connection_done(server, 1)
    for other in (over_stomp, over_websocket):
        async with other(server, port, pki) as hook:
            await hook.send(call("VM.cont"))
            await replies(hook, "VM.cont")
    assert json.loads(await server.ask(call("VM.cont")))["result"] is True


async def test_a_call_that_waits_outlives_its_connection(server, port, pki):
    hold(server, "VM.pause")
    async with over_stomp(server, port, pki) as gone:
        await gone.send(call("VM.pause"), call("VM.cont"), PING)
        await replies(gone, "ping")
    server.held["VM.pause"].set()
    await connection_done(server, 4)
    assert server.done == IN_ORDER


async def test_what_waits_when_the_agent_stops_is_told(connection, server):
    hold(server, "VM.pause")
    await connection.send(call("VM.pause"), call("VM.cont"), PING)
    await replies(connection, "ping")
    await server.dispatcher.drain(0.01)
    told = await replies(connection, "VM.pause", "VM.cont")
    assert [reply["error"]["code"] for reply in told.values()] == [3001, 3001]
    assert not server.dispatcher._changes._clients
    await connection.send(call("VM.cont", identifier="again"))
    assert "error" not in (await replies(connection, "again"))["again"]


async def test_a_refusal_for_a_vm_that_hangs_names_it_and_is_no_trouble_of_the_network(server):
    hold(server, "VM.migrationCreate")
    asking = [asyncio.create_task(server.ask(call("VM.migrationCreate"))) for _ in range(4 + turns.MAX_BEHIND)]
    await connection_done(server, 4)
    server.dispatcher._changes._clock = lambda: asyncio.get_running_loop().time() + 95
    error = json.loads(await server.ask(call("VM.migrationCreate")))["error"]
    assert error["code"] == 40
    assert error["message"] == (
        f"VM {VM.format(1)} hangs: VM.migrationCreate has run for 95 s, and 16 more calls wait behind it"
    )
    assert json.loads(await server.ask(call("VM.pause", 2)))["result"] is True
    assert json.loads(await server.ask(call("VM.destroy")))["result"] is True
    server.held["VM.migrationCreate"].set()
    await asyncio.gather(*asking)


async def test_a_refusal_for_a_line_that_hangs_names_its_vm(connection, server, monkeypatch):
    hold(server, "VM.pause")
    monkeypatch.setattr("vdsm.rpc.order.HUNG_S", 0)
    await connection.send(call("VM.pause"), *[call("VM.cont", identifier=f"c{n}") for n in range(turns.MAX_BEHIND + 1)])
    last = f"c{turns.MAX_BEHIND}"
    error = (await replies(connection, last))[last]["error"]
    assert error["code"] == 40
    assert f"line run of VM {VM.format(1)} hangs: VM.pause has run for 0 s" in error["message"]


@pytest.mark.parametrize("kind", [over_stomp, over_websocket])
async def test_a_connection_full_of_calls_that_hang_is_read_on(server, port, pki, monkeypatch, kind):
    for module in (stomp_session, websocket):
        monkeypatch.setattr(module, "MAX_CALLS", 4)
    monkeypatch.setattr(room, "STUCK_S", 0.1)
    monkeypatch.setattr(room, "LOOK_S", 0.02)
    hold(server, "VM.migrationCreate")
    async with kind(server, port, pki) as connection:
        await connection.send(*[call("VM.migrationCreate", number, f"hung {number}") for number in range(1, 10)])
        await connection.send(call("VM.destroy"), PING)
        await replies(connection, "VM.destroy", "ping")


@pytest.mark.parametrize("kind", [over_stomp, over_websocket])
async def test_a_connection_full_of_calls_is_read_on_when_one_has_been_answered(server, port, pki, monkeypatch, kind):
    for module in (stomp_session, websocket):
        monkeypatch.setattr(module, "MAX_CALLS", 2)
    hold(server, "VM.freeze", "VM.create")
    async with kind(server, port, pki) as connection:
        await connection.send(call("VM.freeze"), call("VM.create", 2), PING)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.reply(), 0.1)
        server.held["VM.freeze"].set()
        await replies(connection, "VM.freeze", "ping")


async def test_what_is_under_way_on_a_connection_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(room, "MAX_BYTES", 100)
    one = room.Room(10, lambda: None)
    first = one.enter(200)
    assert not one.is_open
    one.answered(first)
    assert one.is_open
    one.close()


async def test_replies_that_wait_to_be_sent_take_room_however_long_they_do(monkeypatch):
    monkeypatch.setattr(room, "STUCK_S", 0)
    one = room.Room(2, lambda: None)
    for _ in range(2):
        one.answered(one.enter(1), unsent=True)
    assert not one.is_open
    one.sent()
    assert one.is_open
    one.close()


async def test_so_many_calls_may_be_stuck_and_no_more(monkeypatch):
    monkeypatch.setattr(room, "STUCK_S", 0)
    monkeypatch.setattr(room, "MAX_STUCK", 5)
    one = room.Room(2, lambda: None)
    for _ in range(5):
        assert one.is_open
        one.enter(1)
    assert not one.is_open
    one.close()


async def test_two_clients_share_no_line(server):
    hold(server, "VM.pause")
    first = asyncio.create_task(server.ask(call("VM.pause")))
    await connection_done(server, 1)
    other = Caller(Identity("other", Role.ADMIN, "other"), "test")
    assert json.loads(await server.dispatcher.answer(call("VM.cont"), other))["result"] is True
    server.held["VM.pause"].set()
    await first
