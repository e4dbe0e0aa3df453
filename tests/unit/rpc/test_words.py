# SPDX-License-Identifier: GPL-2.0-or-later
"""What a caller reads: the words of each refusal, and limits to the last one that is taken."""

import json
import logging
import os
import ssl
import struct

import msgspec
import pytest
from ports import opened

from tests.peers import JavaPeer
from vdsm.api.roles import Identity, Role
from vdsm.rpc import access, audit, policy, protocol, stomp_session, tls
from vdsm.rpc.detection import Spoken, detect
from vdsm.rpc.pace import Pace
from vdsm.rpc.policy import PolicyFile
from vdsm.rpc.port import Address, EnginePort
from vdsm.rpc.seats import NoSeat, Seats

UUID = "6a3b1f0e-0000-4000-8000-000000000001"


# -- JSON-RPC


def refused(data):
    with pytest.raises(protocol.Refused) as e:
        protocol.decode(data)
    return e.value.error.code, e.value.error.message, e.value.error.data["reason"]


@pytest.mark.parametrize(
    ("data", "code", "message", "reason"),
    [
        (b"{", -32700, "Parse error", "the message is no JSON in UTF-8"),
        (b'"\xff"', -32700, "Parse error", "the message is no JSON in UTF-8"),
        (b"[" * 50_000 + b"]" * 50_000, -32700, "Parse error", "the JSON is nested too deeply"),
        (b"[]", -32600, "Invalid Request", "the batch is empty"),
        (
            json.dumps([1] * 101).encode(),
            -32600,
            "Invalid Request: the batch has more than 100 members",
            "the batch has more than 100 members",
        ),
        (
            b"[" + b"1," * 100_000 + b"1]",
            -32600,
            "Invalid Request: the message has more than 100000 values",
            "the message has more than 100000 values",
        ),
    ],
    ids=["cut", "bytes", "deep", "empty", "members", "values"],
)
def test_a_message_that_is_refused_has_the_words_of_the_specification_and_the_reason(data, code, message, reason):
    assert refused(data) == (code, message, reason)


def test_the_most_of_a_message_is_taken():
    assert protocol.decode(json.dumps([1] * 100).encode()) == [1] * 100
    most = b'{"a":[' + b",".join([b"1"] * 99_999) + b"]}"
    assert len(protocol.decode(most)["a"]) == 99_999
    assert protocol.decode(b" 1 ") == 1


CALL = {"jsonrpc": "2.0", "method": "x"}


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (1, "a request is an object"),
        ({**CALL, "jsonrpc": 2.0}, "member 'jsonrpc' must be \"2.0\""),
        ({"jsonrpc": "2.0"}, "member 'method' must be text"),
        ({**CALL, "params": None}, "member 'params' must be an object or an array"),
        ({**CALL, "id": True}, "member 'id' must be text, a number or null"),
        ({**CALL, "id": {}}, "member 'id' must be text, a number or null"),
        ({**CALL, "id": "x" * 257}, "member 'id' is longer than 256 characters"),
    ],
)
def test_what_is_no_call_is_refused_with_the_member(member, reason):
    with pytest.raises(protocol.Refused) as e:
        protocol.check(member)
    assert (e.value.error.code, e.value.error.message) == (-32600, "Invalid Request")
    assert e.value.error.data == {"reason": reason}


@pytest.mark.parametrize("more", [{}, {"params": []}, {"params": {}}, {"id": None}, {"id": 1.5}, {"id": "x" * 256}])
def test_what_is_a_call_is_taken(more):
    protocol.check({**CALL, **more})


def test_replies_are_json_without_blanks():
    assert protocol.result("7", None) == b'{"jsonrpc":"2.0","id":"7","result":true}'
    assert protocol.result(None, []) == b'{"jsonrpc":"2.0","id":null,"result":[]}'
    assert protocol.notification("|a|b|c", {"x": 1}) == b'{"jsonrpc":"2.0","method":"|a|b|c","params":{"x":1}}'
    assert protocol.batch([b"1", b"2"]) == b"[1,2]"


# -- the first bytes


@pytest.mark.parametrize(
    ("first", "spoken"),
    [
        (b"GET / HTTP/1.1\r\n", Spoken.HTTP),
        (b"POST /", Spoken.HTTP),
        (b"TRACE ", Spoken.HTTP),
        (b"\r\n\nCONNECT\n", Spoken.STOMP),
        (b"CONNECT\r\n", Spoken.STOMP),
        (b"SEND\na:b", Spoken.STOMP),
        (b"CONNECT", None),
        (b"CONNECT\r", None),
        (b"PO", None),
        (b"", None),
        (b"\n\n", None),
        (b"CONNECTX", Spoken.NEITHER),
        (b"HELO\n", Spoken.NEITHER),
        (b"get / ", Spoken.NEITHER),
        (b"\x16\x03", Spoken.NEITHER),
    ],
)
def test_who_speaks_what_is_known_by_the_first_bytes(first, spoken):
    assert detect(first) is spoken


# -- the other end of a unix socket


class Peer:
    def __init__(self, uid, gid, groups=()):
        self._answers = {17: struct.pack("iII", 99, uid, gid), 59: struct.pack(f"{len(groups)}I", *groups)}

    def getsockopt(self, level, option, length):
        return self._answers[option]


@pytest.mark.parametrize(
    ("peer", "role"),
    [
        (Peer(0, 0), Role.ADMIN),
        (Peer(36, 36), Role.ADMIN),
        (Peer(1000, 4711), Role.OPERATOR),
        (Peer(1000, 1000, (5, 4711)), Role.OPERATOR),
    ],
)
def test_who_is_at_the_other_end_has_a_name_a_role_and_a_line_of_its_own(peer, role, monkeypatch):
    monkeypatch.setattr(access, "_operators", lambda: 4711)
    uid = struct.unpack("iII", peer.getsockopt(1, 17, 12))[1]
    assert access.unix_peer(peer) == Identity(f"uid {uid}", role, f"unix:{uid}:99")


def test_without_the_group_nobody_is_an_operator(monkeypatch):
    monkeypatch.setattr(access, "OPERATOR_GROUP", "no such group")
    assert access.unix_peer(Peer(1000, 4711, (4711,))) is None
    assert access.tcp_peer("192.0.2.1") == Identity("tcp 192.0.2.1", Role.READER, "tcp:192.0.2.1")


# -- handshakes


def ssl_error(reason):
    error = ssl.SSLError(1, "text")
    error.reason = reason
    return error


def not_verified(code, message="words"):
    error = ssl.SSLCertVerificationError(1, "text")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (not_verified(10), "the client's certificate has expired"),
        (not_verified(9), "the client's certificate is not valid yet"),
        *((not_verified(code), "the client's certificate is of a foreign authority") for code in (2, 18, 19, 20, 21)),
        (not_verified(26), "the client's certificate is not accepted: words"),
        (ssl_error("PEER_DID_NOT_RETURN_A_CERTIFICATE"), "no client certificate"),
        (ssl_error("HTTP_REQUEST"), "the client does not speak TLS"),
        (ssl_error("HTTPS_PROXY_REQUEST"), "the client does not speak TLS"),
        (ssl_error("WRONG_VERSION_NUMBER"), "the client does not speak TLS"),
        (ssl_error("UNKNOWN_PROTOCOL"), "the client does not speak TLS"),
        (ssl_error("RECORD_LAYER_FAILURE"), "the client does not speak TLS"),
        (ssl_error("NO_SHARED_CIPHER"), "TLS failed: no shared cipher"),
        (TimeoutError(), "the handshake took too long"),
        (ConnectionAbortedError(), "the handshake took too long"),
        (ConnectionResetError(), "the client closed the connection in the handshake"),
    ],
)
def test_why_a_handshake_ended_is_said_in_a_few_words(error, said):
    assert tls.refusal(error) == said


# -- roles


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('default = "admin"\n[[certificate]]\nrole = "admin"', "certificate 1: expected either name or sha256"),
        (
            'default = "admin"\n[[certificate]]\nrole = "admin"\nname = "a"\nsha256 = "b"',
            "certificate 1: expected either name or sha256",
        ),
        (
            'default = "admin"\n[[certificate]]\nrole = "admin"\nname = "a"\n'
            '[[certificate]]\nrole = "admin"\nsha256 = "ab"',
            "certificate 2: sha256 is not 64 hexadecimal digits",
        ),
        ("default = 1", "Expected `str`, got `int` - at `$.default`"),
    ],
)
def test_a_policy_that_is_refused_says_where(text, reason):
    with pytest.raises(policy.BadPolicy) as e:
        policy.parse(text.encode(), "access.toml")
    assert str(e.value) == f"access.toml: {reason}"


def test_names_are_compared_without_case_and_fingerprints_without_colons():
    digits = "AB" * 32
    colons = ":".join(["AB"] * 32)
    text = f"""default = "refused"
[[certificate]]
name = "Engine-*"
role = "admin"
[[certificate]]
sha256 = "{colons}"
role = "peer"
[[certificate]]
name = "bad"
role = "refused"
"""
    rules = policy.parse(text.encode(), "x")
    assert rules.role_of("ENGINE-7", "") is Role.ADMIN
    assert rules.role_of("x", digits.lower()) is Role.PEER
    assert rules.role_of("bad", "") is None
    assert rules.role_of("other", "") is None


def test_a_policy_that_is_gone_is_told_in_the_log_and_stays(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(policy, "LOOK_AGAIN_S", 0.0)
    file = tmp_path / "access.toml"
    file.write_text('default = "reader"')
    read = PolicyFile(str(tmp_path))
    assert read.current().default is Role.READER
    file.unlink()
    for _ in range(3):
        assert read.current().default is Role.READER
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        f"{file}: it is gone; the policy read before stays in force"
    ]
    file.write_text('default = "peer"')
    assert read.current().default is Role.PEER


def test_a_policy_that_cannot_be_used_names_its_file(tmp_path):
    (tmp_path / "access.toml").write_text("default = 1")
    with pytest.raises(policy.BadPolicy) as e:
        PolicyFile(str(tmp_path)).current()
    assert str(e.value) == f"{tmp_path}/access.toml: Expected `str`, got `int` - at `$.default`"
    with pytest.raises(policy.BadPolicy) as e:
        PolicyFile(str(tmp_path / "access.toml")).current()
    assert str(e.value) == f"{tmp_path}/access.toml/access.toml: Not a directory"


def test_a_policy_of_the_largest_size_is_read(tmp_path):
    text = b'default = "reader"\n'
    (tmp_path / "access.toml").write_bytes(text + b"#" * (policy.MAX_BYTES - len(text)))
    assert PolicyFile(str(tmp_path)).current().default is Role.READER
    (tmp_path / "access.toml").write_bytes(text + b"#" * (policy.MAX_BYTES - len(text) + 1))
    with pytest.raises(policy.BadPolicy, match="more than 1048576 bytes"):
        PolicyFile(str(tmp_path)).current()


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_policy_that_a_group_or_all_may_write_says_so(tmp_path, mode):
    (tmp_path / "access.toml").write_text('default = "reader"')
    os.chmod(tmp_path / "access.toml", mode)
    with pytest.raises(policy.BadPolicy) as e:
        PolicyFile(str(tmp_path)).current()
    assert str(e.value) == f"{tmp_path}/access.toml: must belong to root and be writable by nobody else"


# -- the audit line


@pytest.mark.parametrize(
    ("params", "subjects"),
    [
        ({"vmID": UUID, "force": True}, f"vmID={UUID}"),
        ({"a": UUID, "b": UUID}, f"a={UUID} b={UUID}"),
        ({"pool": "00000000-0000-0000-0000-000000000000"}, "the host"),
        ({"networks": {"red": {}, "blue": {}}, "options": {}}, "networks={red,blue}"),
        ({"networks": {f"n{i}": 1 for i in range(20)}}, "networks={" + ",".join(f"n{i}" for i in range(12)) + "}"),
        ({"x" * 50: UUID}, f"{'x' * 40}={UUID}"),
        ({"a\nb": UUID}, f"'a\\nb'={UUID}"),
        ([UUID, "x", UUID], f"{UUID} {UUID}"),
        ([UUID] * 20, " ".join([UUID] * 12)),
        (7, "the host"),
        ([], "the host"),
    ],
)
def test_an_audit_line_says_who_did_what_to_what(caplog, params, subjects):
    caplog.set_level(logging.INFO, "vdsm.audit")
    audit.record("VM.destroy", Identity("joe\n", Role.ADMIN, "c"), "unix", params, "d" * 3000)
    assert caplog.messages == [f"VM.destroy by 'joe\\n' over unix on {subjects}: {'d' * 2000}"]


# -- pace and seats


def test_a_burst_is_free_and_what_is_more_is_delayed_by_its_share():
    pace = Pace(10.0, burst_s=2.0)
    assert pace.delay_s(20, 100.0) == 0.0
    assert pace.delay_s(5, 100.0) == pytest.approx(0.5)
    assert pace.delay_s(0, 100.5) == pytest.approx(0.0)
    assert pace.delay_s(1, 100.5) == pytest.approx(0.1)
    assert pace.delay_s(20, 1000.0) == 0.0  # rest is not saved up beyond the burst
    assert pace.delay_s(1, 1000.0) == pytest.approx(0.1)


def test_an_engine_s_pace_and_the_seats_of_a_port():
    assert Pace().delay_s(2000, 10.0) == 0.0
    assert Pace().delay_s(4000, 10.0) == pytest.approx(1.0)
    seats = Seats()
    for _ in range(128):
        assert seats.take("a", object()) is None
    with pytest.raises(NoSeat) as e:
        seats.take("a", object())
    assert str(e.value) == "its client has 128 connections already"
    for n in range(512 - 128):
        assert seats.take(f"c{n}", object()) is None
    assert len(seats) == 512
    assert seats.take("d", object()) is not None
    full = Seats(1, 2)
    full.take("a", object())
    with pytest.raises(NoSeat) as e:
        full.take("b", object()) if full.take("a", object()) is None else None
    assert str(e.value) == "the port has 1 connections already"


# -- STOMP


@pytest.fixture
async def plain(server):
    port = EnginePort(
        server.dispatcher, server.events, Address("127.0.0.1", 0), certificates=None, policy=PolicyFile("")
    )
    yield await opened(port)
    await port.stop()


@pytest.fixture
async def peer(plain):
    peer = JavaPeer(plain.port, None)
    await peer.connect("0,0")
    yield peer
    await peer.close()


def text_of(frame):
    command, headers, body = frame
    assert (command, headers["content-type"]) == ("ERROR", "text/plain")
    return body.decode().rstrip("\0")


NAMES = "Ids and destinations have at most 200 characters, and 1000 bytes together"


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (b"CONNECT\naccept-version:1.0,1.1\n\n\0", "Only STOMP 1.2 is spoken here"),
        (b"STOMP\n\n\0", "Only STOMP 1.2 is spoken here"),
        (b"SUBSCRIBE\nid:1\n\n\0", "SUBSCRIBE needs the headers id and destination"),
        (b"SUBSCRIBE\ndestination:1\n\n\0", "SUBSCRIBE needs the headers id and destination"),
        (b"SUBSCRIBE\nid:" + b"1" * 201 + b"\ndestination:a\n\n\0", NAMES),
        (b"SUBSCRIBE\nid:1\ndestination:" + b"a" * 201 + b"\n\n\0", NAMES),
        (b"UNSUBSCRIBE\n\n\0", "UNSUBSCRIBE needs the header id"),
        (b"SEND\n\n{}\0", "Subscription not available"),
        (b"SEND\ndestination:jms.topic.vdsm_requestsX\n\n{}\0", "Subscription not available"),
    ],
)
async def test_a_frame_that_is_refused_says_what_it_lacks(peer, frame, said):
    peer.write(frame)
    assert text_of(await peer.frame()).replace(str(stomp_session.MAX_HEAD), "1000") == said


async def test_the_longest_names_are_taken_and_nobody_minds_an_unknown_one_that_is_given_back(peer):
    peer.write(b"SUBSCRIBE\nid:" + b"1" * 200 + b"\ndestination:" + b"a" * 200 + b"\n\n\0")
    peer.write(b"UNSUBSCRIBE\nid:never\n\n\0")
    peer.write(b"UNSUBSCRIBE\n\n\0")
    assert text_of(await peer.frame()) == "UNSUBSCRIBE needs the header id"


@pytest.mark.parametrize(("length", "is_receipted"), [(200, True), (201, False)])
async def test_a_disconnect_is_receipted_when_its_receipt_is_short_enough(peer, length, is_receipted):
    peer.write(b"DISCONNECT\nreceipt:" + b"r" * length + b"\n\n\0")
    if is_receipted:
        command, headers, _ = await peer.frame()
        assert (command, headers["receipt-id"]) == ("RECEIPT", "r" * length)
    else:
        with pytest.raises(ConnectionError):
            await peer.frame()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"ACK\nid:1\n\n\0", "connection of {} dropped: it sent ACK"),
        (b"SEND\nno colon\n\n\0", "connection of {} dropped: Not a STOMP frame: header 'no colon'"),
    ],
)
async def test_who_is_dropped_is_told_in_the_log_with_the_reason(peer, sent, told, caplog):
    peer.write(sent)
    with pytest.raises(ConnectionError):
        await peer.frame()
    (message,) = [message for message in caplog.messages if "dropped" in message]
    who = message.removeprefix("connection of ").partition(" dropped")[0]
    assert message == told.format(who)
    assert who


@pytest.mark.parametrize("destination", ["jms.topic.vdsm_requests.x", "jms.topic.vdsm_irs_requests.y"])
async def test_queues_below_the_requests_are_taken_as_requests(peer, destination):
    peer.write(b"SUBSCRIBE\nid:1\ndestination:here\n\n\0")
    body = msgspec.json.encode({"jsonrpc": "2.0", "method": "Host.ping2", "id": "1"})
    peer.write(f"SEND\ndestination:{destination}\nreply-to:here\n\n".encode() + body + b"\0")
    command, headers, body = await peer.frame()
    assert (command, headers["destination"], headers["subscription"]) == ("MESSAGE", "here", "1")
    assert headers["content-type"] == "application/json"
    assert json.loads(body.rstrip(b"\0")) == {"jsonrpc": "2.0", "id": "1", "result": True}


async def test_of_a_batch_each_reply_is_a_message(port, pki):
    engine = JavaPeer(port.port, pki.engine())
    await engine.connect("0,0")
    engine.write(b"SUBSCRIBE\nid:1\ndestination:here\n\n\0")
    call = {"jsonrpc": "2.0", "method": "Host.ping2"}
    body = msgspec.json.encode([{**call, "id": "1"}, {**call, "id": "2"}])
    engine.write(b"SEND\ndestination:jms.topic.vdsm_requests\nreply-to:here\n\n" + body + b"\0")
    bodies = [json.loads((await engine.frame())[2].rstrip(b"\0")) for _ in range(2)]
    assert sorted(body["id"] for body in bodies) == ["1", "2"]
    await engine.close()
