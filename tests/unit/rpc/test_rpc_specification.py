# SPDX-License-Identifier: GPL-2.0-or-later
"""The examples of the JSON-RPC 2.0 specification (section 7), request by request."""

import json

import pytest

PARSE_ERROR = {"code": -32700, "message": "Parse error"}
INVALID = {"code": -32600, "message": "Invalid Request"}
NOT_FOUND = {"code": -32601, "message": "Method not found"}


def failed(error, identifier):
    return {"jsonrpc": "2.0", "error": error, "id": identifier}


def done(result, identifier):
    return {"jsonrpc": "2.0", "result": result, "id": identifier}


EXAMPLES = {
    "positional parameters": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        done(19, 1),
    ),
    "positional parameters, other order": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        done(-19, 2),
    ),
    "named parameters": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        done(19, 3),
    ),
    "named parameters, other order": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        done(19, 4),
    ),
    "notification": ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    "notification of an unknown method": ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    "unknown method": ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', failed(NOT_FOUND, "1")),
    "invalid JSON": ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', failed(PARSE_ERROR, None)),
    "invalid request": ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', failed(INVALID, None)),
    "batch of invalid JSON": (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]',
        failed(PARSE_ERROR, None),
    ),
    "empty batch": ("[]", failed(INVALID, None)),
    "batch with one invalid member": ("[1]", [failed(INVALID, None)]),
    "batch of invalid members": ("[1,2,3]", [failed(INVALID, None)] * 3),
    "batch": (
        """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
        ]""",
        [done(7, "1"), done(19, "2"), failed(INVALID, None), failed(NOT_FOUND, "5"), done(["hello", 5], "9")],
    ),
    "batch of notifications": (
        """[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
        ]""",
        None,
    ),
}


def agree(reply, expected):
    """Equal but for what the specification leaves open: ``data``, and words after the message."""
    if isinstance(expected, list):
        assert isinstance(reply, list)
        assert len(reply) == len(expected)
        for one, other in zip(reply, expected, strict=True):
            agree(one, other)
        return
    assert reply.keys() == expected.keys()
    assert reply["jsonrpc"] == "2.0"
    assert reply["id"] == expected["id"]
    if "error" in expected:
        assert reply["error"]["code"] == expected["error"]["code"]
        assert reply["error"]["message"].startswith(expected["error"]["message"])
    else:
        assert reply["result"] == expected["result"]


@pytest.mark.parametrize("example", EXAMPLES)
async def test_example_of_the_specification(server, example):
    request, expected = EXAMPLES[example]
    reply = await server.ask(request.encode())
    if expected is None:
        assert reply is None
    else:
        agree(json.loads(reply), expected)


async def test_notification_runs(server):
    await server.ask(b'{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}')
    assert [(p.a, p.e) for p in server.done] == [(1, 5)]


@pytest.mark.parametrize(
    ("member", "named"),
    [
        ('"jsonrpc": "1.0", "method": "sum"', "jsonrpc"),
        ('"method": "sum"', "jsonrpc"),
        ('"jsonrpc": "2.0"', "method"),
        ('"jsonrpc": "2.0", "method": "sum", "params": 5', "params"),
        ('"jsonrpc": "2.0", "method": "sum", "params": null', "params"),
        ('"jsonrpc": "2.0", "method": "sum", "id": {}', "id"),
        ('"jsonrpc": "2.0", "method": "sum", "id": true', "id"),
    ],
)
async def test_invalid_request_says_which_member(server, member, named):
    reply = json.loads(await server.ask(b"{" + member.encode() + b"}"))
    assert reply["error"]["code"] == -32600
    assert f"'{named}'" in reply["error"]["data"]["reason"]


async def test_nested_batch_is_an_invalid_member(server):
    reply = json.loads(await server.ask(b'[[{"jsonrpc": "2.0", "method": "get_data", "id": 1}]]'))
    assert [member["error"]["code"] for member in reply] == [-32600]


async def test_id_null_is_a_request(server):
    reply = json.loads(await server.ask(b'{"jsonrpc": "2.0", "method": "get_data", "id": null}'))
    assert reply == done(["hello", 5], None)


async def test_verb_without_result_answers_true(server):
    reply = json.loads(await server.ask(b'{"jsonrpc": "2.0", "method": "Host.ping2", "id": 1}'))
    assert reply == done(True, 1)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 20_000, -32700),
        (b'{"a":' * 5_000, -32700),
        (b"[" + b"[]," * 150_000 + b"1]", -32600),
        (b"[" + b"1," * 150 + b"1]", -32600),
    ],
)
async def test_hostile_message_is_refused_quickly(server, message, code):
    reply = json.loads(await server.ask(message))
    assert reply["error"]["code"] == code
    assert reply["id"] is None


async def test_message_of_too_many_values_is_refused_before_it_is_decoded(server):
    message = b'{"jsonrpc":"2.0","method":"sum","id":1,"params":{"a":[' + b"[]," * 150_000 + b"1]}}"
    reply = json.loads(await server.ask(message))
    assert reply["error"]["message"] == "Invalid Request: the message has more than 100000 values"


async def test_batch_of_100_members_runs(server):
    member = '{"jsonrpc": "2.0", "method": "sum", "params": [1], "id": 1}'
    reply = json.loads(await server.ask(f"[{','.join([member] * 100)}]".encode()))
    assert [r["result"] for r in reply] == [1] * 100
    reply = json.loads(await server.ask(f"[{','.join([member] * 101)}]".encode()))
    assert reply["error"]["message"] == "Invalid Request: the batch has more than 100 members"
    assert len(server.done) == 100
