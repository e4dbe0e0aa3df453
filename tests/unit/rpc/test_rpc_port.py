# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's port, as the field's clients and its enemies see it."""

import asyncio
import contextlib
import json
import ssl
import statistics
import time

import pytest
from pki import Pki
from ports import opened

from tests.peers import EVENTS, REQUESTS, JavaPeer, PythonPeer
from vdsm.certificates import places
from vdsm.rpc import outbox, tls
from vdsm.rpc import port as port_module
from vdsm.rpc.outbox import Outboxes
from vdsm.rpc.policy import PolicyFile
from vdsm.rpc.port import Address, EnginePort
from vdsm.rpc.seats import Seats
from vdsm.rpc.waiting_room import MAX_WAITING_OF_ADDRESS


@pytest.fixture
async def plain(server):
    port = EnginePort(
        server.dispatcher, server.events, Address("127.0.0.1", 0), certificates=None, policy=PolicyFile("")
    )
    yield await opened(port)
    await port.stop()


@contextlib.asynccontextmanager
async def java(port, context, heart_beat="0,15000"):
    peer = JavaPeer(port.port, context)
    await peer.connect(heart_beat)
    try:
        yield peer
    finally:
        await peer.close()


async def test_any_number_of_heart_beats_may_come_before_the_first_frame(plain):
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    writer.write(b"\n" * 1000 + b"CONNECT\naccept-version:1.2\n\n\0")
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\0")).startswith(b"CONNECTED\n")
    writer.close()


async def test_heart_beats_before_the_first_frame_are_not_kept(plain, monkeypatch):
    kept = []
    settle = port_module._FirstBytes._settle

    def settle_and_tell(self, spoken):
        kept.append(len(self.data))
        settle(self, spoken)

    monkeypatch.setattr(port_module._FirstBytes, "_settle", settle_and_tell)
    _, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    for _ in range(20):
        writer.write(b"\n" * 100_000)
        await writer.drain()
    async with asyncio.timeout(5):
        while len(kept) < 5:
            await asyncio.sleep(0.01)
    assert max(kept) == 0
    writer.close()


async def test_an_engine_calls_a_thousand_times(port, pki):
    async with java(port, pki.engine()) as engine:
        for number in range(1000):
            reply = await engine.call("subtract", {"minuend": number, "subtrahend": 1})
            assert reply == {"jsonrpc": "2.0", "id": reply["id"], "result": number - 1}


@pytest.mark.parametrize("size", [0, 7000], ids=["fits the socket", "waits for the reader"])
async def test_an_engine_gets_a_thousand_events_each_in_a_record_of_its_own(port, pki, server, size):
    async with java(port, pki.engine()) as engine:
        await engine.call("Host.ping2")
        for number in range(1000):
            server.events.publish("virt", "VM_status", f"vm-{number}", {"n": number, "filler": "x" * size})
        while len(engine.events) < 1000:
            _, headers, body = await engine.frame()
            assert headers["destination"] == EVENTS
            engine.events.append(json.loads(body))
        for number, event in enumerate(engine.events):
            assert event["method"] == f"|virt|VM_status|vm-{number}"
            assert "id" not in event
            assert isinstance(event["params"]["notify_time"], int)
        # decrypted record by record: no record has two frames, none is anything but one
        assert all(record.count(b"\0") == 1 or record == b"\n" for record in engine.records)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [("0,15000", "15000,0"), ("0,11250", "11250,0"), ("0,8438", "8438,0"), ("0,6329", "6329,0"), ("0,700", "1000,0")],
)
async def test_heart_beats_are_granted_as_asked_down_to_a_second(port, pki, asked, answered):
    peer = JavaPeer(port.port, pki.engine())
    assert (await peer.connect(asked))["heart-beat"] == answered
    await peer.close()


@pytest.mark.parametrize("text", ["", "x", "1", "-1,5", "1,2,3", "0,1e9"])
async def test_bad_heart_beats_mean_none(port, pki, text):
    peer = JavaPeer(port.port, pki.engine())
    assert (await peer.connect(text))["heart-beat"] == "0,0"
    await peer.close()


async def test_a_quiet_connection_gets_a_beat_in_time(port, pki):
    async with java(port, pki.engine(), "0,1000") as engine:
        began = time.monotonic()
        assert await engine.record() == b"\n"
        assert 0.5 < time.monotonic() - began <= 1.0


async def test_in_plain_mode_subscriptions_come_before_connect_and_nobody_changes(plain, server):
    async with java(plain, None) as engine:
        assert (await engine.call("Host.ping2"))["result"] is True
        refused = await engine.call("Volume.delete", {"volumeID": "6a3b1f0e-0000-4000-8000-000000000001"})
        assert "needs role admin" in refused["error"]["message"]
    assert server.done == []


async def test_a_python_client_calls_in_batches_of_one_and_gets_plain_objects(port, pki, server):
    peer = PythonPeer(port.port, pki.client())
    await peer.connect()
    peer.subscribe(EVENTS)
    for number in range(1000):
        assert (await peer.call("subtract", {"minuend": number, "subtrahend": 0}))["result"] == number
    server.events.publish("net", "host_conn", "", {})
    assert (await peer.message())["method"] == "|net|host_conn|no_id"
    await peer.close()


async def test_a_reconnect_after_another_finds_the_same_host(port, pki):
    for _ in range(20):
        async with java(port, pki.engine()) as engine:
            assert (await engine.call("Host.ping2"))["result"] is True
    async with asyncio.timeout(2):
        while port._open:
            await asyncio.sleep(0.01)


async def test_spm_requests_have_a_queue_of_their_own(port, pki):
    async with java(port, pki.engine()) as engine:
        body = b'{"jsonrpc":"2.0","method":"Host.ping2","params":{},"id":"1"}'
        head = b"SEND\ndestination:jms.topic.vdsm_irs_requests\nreply-to:jms.topic.vdsm_responses\n\n"
        engine.write(head + body + b"\0")
        assert json.loads((await engine.frame())[2])["result"] is True


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"SUBSCRIBE\nid:1\n\n\0", b"needs the headers id and destination"),
        (b"SUBSCRIBE\ndestination:a\n\n\0", b"needs the headers id and destination"),
        (b"SUBSCRIBE\nid:1\ndestination:a\n\n\0SUBSCRIBE\nid:1\ndestination:b\n\n\0", b"There is a subscription 1"),
        (b"UNSUBSCRIBE\n\n\0", b"needs the header id"),
        (b"SEND\ndestination:elsewhere\n\n{}\0", b"Subscription not available"),
        (b"CONNECT\naccept-version:1.0\n\n\0", b"Only STOMP 1.2"),
    ],
)
async def test_a_wrong_frame_is_answered_with_an_error_and_the_connection_goes_on(port, pki, frame, said):
    async with java(port, pki.engine()) as engine:
        engine.write(frame)
        command, _, body = await engine.frame()
        assert (command, said in body) == ("ERROR", True)
        assert (await engine.call("Host.ping2"))["result"] is True


async def test_disconnect_is_receipted_and_the_connection_stays(port, pki):
    async with java(port, pki.engine()) as engine:
        engine.write(b"DISCONNECT\nreceipt:77\n\n\0")
        assert (await engine.frame())[:2] == ("RECEIPT", {"receipt-id": "77"})
        assert (await engine.call("Host.ping2"))["result"] is True


@pytest.mark.parametrize("frame", [b"ACK\nid:1\n\n\0", b"DISCONNECT\n\n\0", b"SEND\nno colon\n\n\0", b"\x01\x02"])
async def test_what_no_client_sends_closes_the_connection(port, pki, frame):
    async with java(port, pki.engine()) as engine:
        engine.write(frame)
        async with asyncio.timeout(2):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await engine.record()


async def test_a_flow_id_comes_from_the_header(port, pki):
    async with java(port, pki.engine()) as engine:
        body = b'{"jsonrpc":"2.0","method":"Host.flow","params":{},"id":"1"}'
        head = f"SEND\ndestination:{REQUESTS}\nreply-to:jms.topic.vdsm_responses\novirtCorrelationId:flow-7\n\n"
        engine.write(head.encode() + body + b"\0")
        assert json.loads((await engine.frame())[2])["result"] == "flow-7"


async def test_a_reply_comes_once_to_the_newest_of_several_subscriptions(port, pki):
    async with java(port, pki.engine()) as engine:
        for number in range(3):
            engine.write(b"SUBSCRIBE\nid:%d\ndestination:q\n\n\0" % number)
        call = b'{"jsonrpc":"2.0","method":"Host.ping2","id":"1"}'
        engine.write(b"SEND\ndestination:%s\nreply-to:q\n\n%s\0" % (REQUESTS.encode(), call))
        _, headers, _ = await engine.frame()
        assert headers["subscription"] == "2"
        engine.write(b"DISCONNECT\nreceipt:next\n\n\0")
        assert (await engine.frame())[0] == "RECEIPT"


async def test_an_event_comes_to_each_subscription(port, pki, server):
    async with java(port, pki.engine()) as engine:
        engine.write(f"SUBSCRIBE\nid:second\ndestination:{EVENTS}\n\n\0".encode())
        await engine.call("Host.ping2")
        server.events.publish("net", "host_conn", "", {})
        identifiers = {(await engine.frame())[1]["subscription"] for _ in range(2)}
        assert len(identifiers) == 2
        assert "second" in identifiers


async def test_an_engine_hears_no_events_until_the_vms_are_found_again(port, pki, server):
    async with java(port, pki.engine()) as engine:
        await engine.call("Host.ping2")
        server.is_ready = False
        server.events.publish("virt", "VM_status", "early", {})
        assert (await engine.call("Host.ping2"))["error"]["code"] == 99
        server.is_ready = True
        server.events.publish("virt", "VM_status", "late", {})
        assert (await engine.call("Host.ping2"))["result"] is True
        while not engine.events:
            engine.events.append(json.loads((await engine.frame())[2]))
        assert [event["method"] for event in engine.events] == ["|virt|VM_status|late"]


@pytest.mark.parametrize(("way", "hidden"), [("plain", True), ("port", False)])
async def test_events_show_no_secret_to_those_below_admin(plain, port, pki, server, way, hidden):
    async with java(plain if way == "plain" else port, pki.engine() if way == "port" else None) as engine:
        await engine.call("Host.ping2")
        server.events.publish("virt", "VM_status", "vm", {"vm": {"xml": "<graphics passwd='swordfish'/>"}})
        _, _, body = await engine.frame()
        assert (b"swordfish" not in body) is hidden
        assert b"graphics" in body


async def test_a_secret_that_a_sentence_of_an_event_tells_is_hidden_from_everybody(port, pki, server):
    async with java(port, pki.engine()) as engine:
        await engine.call("Host.ping2")
        server.events.publish("virt", "VM_status", "vm", {"vm": {"exitMessage": "it said passwd='swordfish'"}})
        _, _, body = await engine.frame()
        assert b"swordfish" not in body
        assert b"it said" in body


async def test_who_unsubscribes_from_events_hears_none_and_is_no_subscriber_any_more(plain, server):
    async with java(plain, None) as engine:
        await engine.call("Host.ping2")
        engine.write(f"SUBSCRIBE\nid:mine\ndestination:{EVENTS}\n\n\0UNSUBSCRIBE\nid:mine\n\n\0".encode())
        await engine.call("Host.ping2")
        assert len(server.events.subscriptions) == 1
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    writer.write(f"SUBSCRIBE\nid:a\ndestination:{EVENTS}\n\n\0UNSUBSCRIBE\nid:a\n\n\0".encode())
    writer.write(b"DISCONNECT\nreceipt:1\n\n\0")
    await reader.readuntil(b"\0")
    async with asyncio.timeout(5):
        while server.events.subscriptions:
            await asyncio.sleep(0.01)
    writer.close()


async def test_a_connection_has_so_many_subscriptions_and_no_more(plain):
    async with java(plain, None) as engine:
        for number in range(62):
            engine.write(b"SUBSCRIBE\nid:%d\ndestination:q\n\n\0" % number)
        assert (await engine.call("Host.ping2"))["result"] is True
        engine.write(b"SUBSCRIBE\nid:more\ndestination:q\n\n\0")
        command, _, body = await engine.frame()
        assert (command, b"at most 64" in body) == ("ERROR", True)


async def test_no_head_is_longer_than_the_engine_s_parser_takes(port, pki):
    async with java(port, pki.engine()) as engine:
        engine.write(f"SUBSCRIBE\nid:{'é€' * 100}\ndestination:{'€' * 200}\n\n\0".encode())
        command, _, body = await engine.frame()
        assert (command, b"bytes together" in body) == ("ERROR", True)


async def test_all_that_waits_on_the_port_is_bounded(port, pki, server, caplog):
    port._outboxes = Outboxes(most=1 << 20)
    lazy = JavaPeer(port.port, pki.engine())
    await lazy.connect()
    async with java(port, pki.engine()) as other:
        for _ in range(200):
            server.events.publish("virt", "VM_status", "vm", {"filler": "x" * 50_000})
            _, _, body = await other.frame()
            assert "method" in json.loads(body)
        assert (await other.call("Host.ping2"))["result"] is True
    assert "bytes wait on all connections" in caplog.text
    await lazy.close()


async def test_over_tls_too_a_peer_that_takes_nothing_is_dropped_in_time(port, pki, server, caplog, monkeypatch):
    monkeypatch.setattr(outbox, "UNREAD_S", 0.2)
    lazy = JavaPeer(port.port, pki.engine())
    await lazy.connect()
    for _ in range(300):
        server.events.publish("virt", "VM_status", "vm", {"filler": "x" * 50_000})
    async with asyncio.timeout(5):
        while "it has taken nothing for 0.2 s" not in caplog.text:
            await asyncio.sleep(0.01)
    await lazy.close()


async def test_a_subscriber_that_does_not_read_delays_nobody_and_is_dropped(port, pki, server, caplog):
    lazy = JavaPeer(port.port, pki.engine())
    await lazy.connect()
    other = PythonPeer(port.port, pki.client())
    await other.connect()
    filler, slowest = "x" * 50_000, 0.0
    for number in range(2500):
        server.events.publish("virt", "VM_status", "vm", {"filler": filler})
        if number % 50 == 0:
            began = time.monotonic()
            assert (await other.call("Host.ping2"))["result"] is True
            slowest = max(slowest, time.monotonic() - began)
        if not server.events.subscriptions:
            break
    assert slowest < 0.5
    assert "does not read" in caplog.text
    await lazy.close()
    await other.close()


async def test_http_is_spoken_on_the_same_port(port, pki):
    status, body = await http(port, pki, b"POST /jsonrpc", b'{"jsonrpc":"2.0","method":"Host.ping2","id":1}')
    assert (status, json.loads(body)["result"]) == (200, True)


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (b"GET /", b"", 404),
        (b"POST /elsewhere", b"", 404),
        (b"GET /metrics", b"", 404),
        (b"GET /", b"Storage-Pool-Id: 1\r\n", 500),
        (b"PUT /", b"Storage-Pool-Id: 1\r\n", 500),
    ],
)
async def test_other_http_is_refused_and_closed(port, pki, request_line, headers, status):
    got, body = await http(port, pki, request_line, b"", headers)
    assert got == status
    assert status == 404 or json.loads(body)["status"]["code"] == 100


async def http(port, pki, request_line, body, headers=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=pki.client())
    writer.write(request_line + b" HTTP/1.1\r\nHost: host\r\nConnection: close\r\n" + headers)
    writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "no client certificate"),
        ("stranger", "of a foreign authority"),
        ("old", "has expired"),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_who_proves_nothing_is_refused_with_the_reason_in_the_log(port, pki, server, caplog, name, said, version):
    context = pki.client(name)
    context.minimum_version = context.maximum_version = version
    answer = b""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=context)
        writer.write(b"SEND\ndestination:jms.topic.vdsm_requests\n\n{}\0")
        answer = await reader.read()
    assert answer == b""
    async with asyncio.timeout(5):
        while said not in caplog.text:
            await asyncio.sleep(0.01)
    assert "connection from 127.0.0.1 refused" in caplog.text


async def test_who_does_not_speak_tls_is_refused(port, caplog):
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
    writer.write(b"CONNECT\naccept-version:1.2\n\n\0")
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            await reader.read()
    writer.close()
    assert "does not speak TLS" in caplog.text


async def test_first_bytes_that_do_not_come_are_not_waited_for(port, pki, caplog, monkeypatch):
    monkeypatch.setattr(port_module, "FIRST_BYTES_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=pki.client())
    async with asyncio.timeout(3):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    assert "no first bytes came" in caplog.text


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_connections_leave_no_sessions_behind(port, pki, monkeypatch, version):
    monkeypatch.setattr(tls, "HANDSHAKES_OF_A_CONTEXT", 5)
    context = pki.engine()
    context.maximum_version = version
    for _ in range(20):
        async with java(port, context) as engine:
            await engine.call("Host.ping2")
        assert port._certificates.context().session_stats()["number"] <= 5


async def test_a_handshake_that_does_not_end_is_not_waited_for(port, caplog, monkeypatch):
    monkeypatch.setattr(port_module, "HANDSHAKE_S", 0.2)
    for reader, writer in (await asyncio.open_connection("127.0.0.1", port.port), await _half_open(port.port)):
        async with asyncio.timeout(3):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
    assert "the handshake took too long" in caplog.text


async def test_of_silent_connections_of_one_address_the_oldest_go(port):
    silent = [await asyncio.open_connection("127.0.0.1", port.port) for _ in range(MAX_WAITING_OF_ADDRESS + 3)]
    async with asyncio.timeout(5):
        for reader, _ in silent[:3]:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
    assert len(port._room) == MAX_WAITING_OF_ADDRESS
    for _, writer in silent:
        writer.close()


async def test_a_client_that_fills_its_share_of_the_port_is_refused_and_locks_out_nobody(port, pki, caplog):
    port._seats = Seats(most=3, most_of_client=2)
    async with contextlib.AsyncExitStack() as connected:
        many = [await connected.enter_async_context(java(port, pki.engine())) for _ in range(2)]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await connected.enter_async_context(java(port, pki.engine()))
        assert "its client has 2 connections already" in caplog.text
        assert (await many[0].call("Host.ping2"))["result"] is True
        other = PythonPeer(port.port, pki.client("neighbour"))
        await other.connect()
        assert (await other.call("Host.ping2"))["result"] is True
        await other.close()


async def test_of_a_full_port_the_client_with_most_makes_room(port, pki, caplog):
    port._seats = Seats(most=2, most_of_client=2)
    async with java(port, pki.engine()) as oldest, java(port, pki.engine()) as newer:
        other = PythonPeer(port.port, pki.client("neighbour"))
        await other.connect()
        assert (await other.call("Host.ping2"))["result"] is True
        assert (await newer.call("Host.ping2"))["result"] is True
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(oldest.frame(), 5)
        await other.close()
    assert "its own has most connections" in caplog.text


async def test_a_connection_that_closes_leaves_its_seat(port, pki):
    port._seats = Seats(most=1, most_of_client=1)
    for _ in range(3):
        async with java(port, pki.engine()) as engine:
            assert (await engine.call("Host.ping2"))["result"] is True
        async with asyncio.timeout(5):
            while len(port._seats):
                await asyncio.sleep(0.01)


class SlowNames:
    """A name service that answers when it is told to."""

    def __init__(self, port, monkeypatch):
        self.asked, self.answered = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(port_module.names, "belongs_to", self._belongs_to)
        port._match_names = True

    async def _belongs_to(self, *_):
        self.asked.set()
        await self.answered.wait()
        return True


async def test_a_connection_that_is_gone_before_it_has_a_seat_takes_none(port, pki, caplog, monkeypatch):
    names = SlowNames(port, monkeypatch)
    _, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=pki.client())
    writer.write(b"CONNECT\naccept-version:1.2\n\n\0")
    await names.asked.wait()
    (waiting,) = port._room._by_address["127.0.0.1"]
    writer.transport.abort()
    async with asyncio.timeout(5):
        while not waiting.is_closing():
            await asyncio.sleep(0.01)
    names.answered.set()
    async with asyncio.timeout(5):
        while "it closed" not in caplog.text:
            await asyncio.sleep(0.01)
    assert (len(port._seats), len(port._open)) == (0, 0)


async def test_while_names_are_looked_up_little_is_kept_and_nothing_is_lost(port, pki, monkeypatch):
    names, sent = SlowNames(port, monkeypatch), 300
    paused, pause = asyncio.Event(), port_module._FirstBytes._pause_when_full
    kept = []

    def pause_and_tell(self):
        pause(self)
        kept.append(len(self.data))
        if self._transport is not None and not self._transport.is_reading():
            paused.set()

    monkeypatch.setattr(port_module._FirstBytes, "_pause_when_full", pause_and_tell)
    reader, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=pki.client())
    body = b'{"jsonrpc":"2.0","method":"Host.ping2","id":1,"filler":"%s"}' % (b"x" * 20_000)
    writer.write(b"CONNECT\naccept-version:1.2\n\n\0SUBSCRIBE\nid:1\ndestination:q\n\n\0")
    writer.write((b"SEND\ndestination:%s\nreply-to:q\n\n%s\0" % (REQUESTS.encode(), body)) * sent)
    await names.asked.wait()
    await asyncio.wait_for(paused.wait(), 5)
    assert max(kept) < 1 << 20
    names.answered.set()
    async with asyncio.timeout(20):
        got = b""
        while got.count(b"MESSAGE\n") < sent or not got.endswith(b"\0"):
            got += await reader.read(1 << 16)
    writer.close()


async def test_new_certificates_are_used_without_restart_and_broken_ones_are_not(server, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(tls, "LOOK_AGAIN_S", 0.0)
    pki = Pki(tmp_path / "pki")
    certificates = tls.Certificates(places.host(str(pki.folder)))
    port = await opened(
        EnginePort(
            server.dispatcher,
            server.events,
            Address("::", 0),
            certificates=certificates,
            policy=PolicyFile(str(tmp_path)),
        )
    )
    try:
        assert await _subject(port, pki) == "host"
        pki.issue("certs/vdsmcert", "renewed", key="keys/vdsmkey")
        assert await _subject(port, pki) == "renewed"
        (pki.folder / "certs/vdsmcert.pem").write_text("no certificate")
        assert await _subject(port, pki) == "renewed"
        assert "the ones loaded before stay in use" in caplog.text
    finally:
        await port.stop()


async def _subject(port, pki):
    _, writer = await asyncio.open_connection("127.0.0.1", port.port, ssl=pki.client())
    certificate = writer.get_extra_info("peercert")
    writer.close()
    return next(value for part in certificate["subject"] for name, value in part if name == "commonName")


async def test_a_port_without_certificates_opens_when_they_come(server, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(port_module, "LOOK_FOR_CERTIFICATES_S", 0.02)
    certificates = tls.Certificates(places.host(str(tmp_path / "pki")))
    port = EnginePort(
        server.dispatcher,
        server.events,
        Address("::", 0),
        certificates=certificates,
        policy=PolicyFile(str(tmp_path)),
    )
    await port.start()
    try:
        await asyncio.sleep(0.1)  # several looks
        assert port.port == 0
        assert caplog.text.count("stays closed") == 1
        await asyncio.to_thread(Pki, tmp_path / "pki")
        async with asyncio.timeout(5):
            while not port.port:
                await asyncio.sleep(0.01)
    finally:
        await port.stop()


async def test_floods_of_silent_connections_leave_others_alone(port, pki):
    """A tenth of what a host is tested with, in the time of a unit test."""
    async with java(port, pki.engine()) as engine:
        silent = [await asyncio.open_connection("127.0.0.1", port.port) for _ in range(100)]
        half = [asyncio.create_task(_half_open(port.port)) for _ in range(500)]
        times = []
        for _ in range(300):
            began = time.monotonic()
            await engine.call("Host.ping2")
            times.append(time.monotonic() - began)
        assert statistics.quantiles(times, n=100)[98] < 0.25  # on a machine that runs other tests, too
        async with java(port, pki.engine()) as newcomer:
            assert (await newcomer.call("Host.ping2"))["result"] is True
        for _, writer in [*silent, *(await asyncio.gather(*half))]:
            writer.close()


async def _half_open(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    return reader, writer
