# SPDX-License-Identifier: GPL-2.0-or-later
"""The client against servers that are no agent, or a broken one: each way to answer wrongly is one kind of error."""

import asyncio
import functools
import gzip

import pytest
from strangers import CONNECTED, WAYS, answers, says, stranger, upgrade

from vdsm.client import Client, ConnectionLost, NoAnswer, RpcError, Unsendable
from vdsm.client import stomp as stomp_module
from vdsm.client import web as web_module
from vdsm.common import logs

S = 5.0  # more than any of them takes
DEEP = b'{"id":1,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
WRONG = {
    "nothing": (b"", "no JSON"),
    "no JSON": (b"nope", "no JSON"),
    "bytes that are not UTF-8": (b'{"id":1,"result":"\xff"}', "no JSON"),
    "deep JSON": (DEEP, "nested too deep"),
    "a list": (b'[{"id":1,"result":1}]', "no object"),
    "true for its number": (b'{"id":true,"result":1}', "a call that was never made"),
    "a float for its number": (b'{"id":1.0,"result":1}', "a call that was never made"),
    "a list for its number": (b'{"id":[],"result":1}', "a call that was never made"),
    "text as error": (b'{"id":1,"error":"x"}', "no code or no message"),
    "an empty error": (b'{"id":1,"error":{}}', "no code or no message"),
    "an error's code in text": (b'{"id":1,"error":{"code":"x","message":"y"}}', "no code or no message"),
    "true for an error's code": (b'{"id":1,"error":{"code":true,"message":"y"}}', "no code or no message"),
    "an error's message that is a number": (b'{"id":1,"error":{"code":1,"message":1}}', "no code or no message"),
}


@pytest.fixture(autouse=True)
def parting_is_quick(monkeypatch):
    for module in (stomp_module, web_module):
        monkeypatch.setattr(module, "CLOSE_S", 0.05, raising=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_answer_is_a_lost_connection_that_says_what_was_wrong(way, what):
    body, reason = WRONG[what]
    async with stranger(way, answers(way, body)) as client:
        with pytest.raises(ConnectionLost, match=reason):
            await client.call("Host.ping2", timeout_s=S)


@pytest.mark.parametrize("way", WAYS)
async def test_an_error_is_typed_when_it_has_no_more_than_code_and_message(way):
    async with stranger(way, answers(way, b'{"id":1,"error":{"code":5,"message":"no"}}')) as client:
        with pytest.raises(RpcError, match="failed with code 5: no"):
            await client.call("Host.ping2", timeout_s=S)


async def test_an_http_answer_to_another_call_is_not_taken():
    async with stranger("http", answers("http", b'{"id":2,"result":1}')) as client:
        with pytest.raises(ConnectionLost, match="HTTP status 200, and it answered another call"):
            await client.call("Host.ping2", timeout_s=S)


async def test_an_http_error_without_number_is_the_call_s():
    async with stranger("http", answers("http", b'{"id":null,"error":{"code":-32001,"message":"no"}}')) as client:
        with pytest.raises(RpcError, match="-32001"):
            await client.call("Host.ping2", timeout_s=S)


@pytest.mark.parametrize(
    ("said", "reason"),
    [(b"\0\xff" * 100, "Not a STOMP frame"), (b"CONNECTED\n" + b"a:b\n" * 50_000, "headers of more than")],
)
async def test_what_is_no_stomp_before_the_connection_stands_is_told(said, reason):
    async with stranger("stomp", says(said)) as client:
        with pytest.raises(ConnectionLost, match=reason):
            await client.call("Host.ping2", timeout_s=S)


async def test_events_are_not_had_from_what_is_no_stomp():
    async with stranger("stomp", says(b"SSH-2.0\r\n")) as client:
        with pytest.raises(ConnectionLost, match="Not a STOMP frame"):
            await client.listen(timeout_s=S)


async def test_an_event_without_an_object_has_no_parameters():
    event = b'{"method":"|virt|VM_status|1","params":[1]}'
    async with stranger("stomp", says(CONNECTED + b"MESSAGE\n\n" + event + b"\0")) as client:
        events = await client.listen(timeout_s=S)
        assert (await anext(events)).params == {}
        await events.aclose()


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "a\0b", "\udcff"])
@pytest.mark.parametrize("way", WAYS)
async def test_what_is_no_address_is_a_lost_connection(way, host):
    made = Client.stomp(host) if way == "stomp" else getattr(Client, way)(f"http://{host}:54321")
    async with made as client:
        with pytest.raises(ConnectionLost):
            await client.call("Host.ping2", timeout_s=S)


def nested(depth):
    found = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("params", "reason"), [(["\udcff"], "not Unicode"), ({"\udcff": 1}, "not Unicode"), (nested(5000), "too deep")]
)
async def test_parameters_that_no_message_holds_are_told_before_anything_is_sent(params, reason):
    async with Client.stomp("nobody.invalid") as client:
        with pytest.raises(Unsendable, match=reason):
            await client.call("Host.ping2", params)


@pytest.mark.parametrize("flow_id", ["a\nb", "\udcff"])
async def test_a_flow_id_that_no_header_holds_is_told_before_anything_is_sent(flow_id):
    async with Client.http("http://nobody.invalid") as client:
        with logs.flow(flow_id), pytest.raises(Unsendable, match="flow id"):
            await client.call("Host.ping2")


async def takes_nothing(way, reader, writer):
    writer.transport.pause_reading()
    if way == "stomp":
        writer.write(CONNECTED)


async def never_closes(way, reader, writer):
    if way == "stomp":
        writer.write(CONNECTED)
    elif way == "ws":
        await upgrade(reader, writer)


async def upgrades_and_takes_nothing(way, reader, writer):
    await never_closes(way, reader, writer)
    writer.transport.pause_reading()


async def says_nothing(reader, writer):
    pass


@pytest.mark.parametrize("way", ["stomp", "ws"])
async def test_what_never_became_a_connection_sent_nothing(way):
    async with stranger(way, says_nothing) as client:
        with pytest.raises(ConnectionLost, match=r"there was none within 0\.2 s"):
            await client.call("Host.ping2", timeout_s=0.2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("behave", [takes_nothing, never_closes, upgrades_and_takes_nothing])
async def test_a_call_ends_at_its_timeout_and_the_client_soon_after(way, behave):
    async with stranger(way, functools.partial(behave, way)) as client, asyncio.timeout(5):
        with pytest.raises(ConnectionLost if (way, behave) == ("ws", takes_nothing) else NoAnswer):
            await client.call("Host.echo", ["x" * (20 << 20)], timeout_s=0.2)
        await client.close()


def web_answer(head, part=b""):
    """That head, and that part again and again for as long as it is taken."""

    async def behave(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        while part:
            writer.write(part)
            await writer.drain()

    return behave


@pytest.mark.parametrize(
    "behave",
    [
        web_answer(b"HTTP/1.1 200 OK\r\n\r\n", b"z" * 65536),
        web_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n%b\r\n" % (b"z" * 65536)),
        web_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n", b"z" * 65536),
    ],
    ids=["to the end", "chunked", "of known length"],
)
@pytest.mark.parametrize(
    "ask", [lambda client: client.call("Host.ping2", timeout_s=S), lambda client: client.metrics(timeout_s=S)]
)
async def test_an_http_answer_without_end_is_not_read_on(behave, ask, monkeypatch):
    monkeypatch.setattr(web_module, "MAX_ANSWER", 1 << 20)
    async with stranger("http", behave) as client:
        with pytest.raises(ConnectionLost, match="an answer of more than 1048576 bytes"):
            await ask(client)


async def test_an_http_answer_of_the_largest_size_is_taken(monkeypatch):
    body = b'{"id":1,"result":"%b"}' % (b"x" * 200_000)
    monkeypatch.setattr(web_module, "MAX_ANSWER", len(body))
    async with stranger("http", answers("http", body)) as client:
        assert await client.call("Host.ping2", timeout_s=S) == "x" * 200_000


@pytest.mark.parametrize(
    "behave",
    [
        web_answer(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000),
        web_answer(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65536),
        web_answer(b"HTTP/1.1 200 ", b"y" * 65536),
        web_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 1000),
    ],
    ids=["headers", "a header", "a status line", "trailers"],
)
async def test_a_head_without_end_is_not_read_on(behave):
    async with stranger("http", behave) as client:
        with pytest.raises(ConnectionLost):
            await client.call("Host.ping2", timeout_s=S)


async def test_packed_answers_are_not_unpacked():
    packed = gzip.compress(b'{"id":1,"result":1}')
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with stranger("http", web_answer(head + packed)) as client:
        with pytest.raises(ConnectionLost, match="no JSON"):
            await client.call("Host.ping2", timeout_s=S)


@pytest.mark.parametrize("way", ["http", "ws"])
async def test_a_redirect_is_not_followed(way):
    async with stranger("http", says(b"")) as elsewhere:
        head = b"HTTP/1.1 307 Elsewhere\r\nLocation: %b/jsonrpc\r\nContent-Length: 0\r\n\r\n" % elsewhere.where.encode()
        async with stranger(way, web_answer(head)) as client:
            with pytest.raises(ConnectionLost, match="HTTP status 307: it redirects"):
                await client.call("Host.ping2", timeout_s=S)
