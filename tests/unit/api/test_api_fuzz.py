# SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile parameters and bodies against the whole agent: an answer by the book, never a defect, never much memory."""

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from contrib.fuzz import json_forms
from contrib.fuzz.json_forms import ID
from contrib.lab.wrong_input import sample
from vdsm.api import codes, registry
from vdsm.common import metrics
from vdsm.rpc.dispatcher import ENGINE, OWN

VERBS = registry.load()
NAMESPACES = {
    namespace: sorted(name for name in VERBS if name.startswith(namespace + "."))
    for namespace in sorted({name.partition(".")[0] for name in VERBS})
}
POLICIES = {"own": OWN, "engine": ENGINE}
PROTOCOL = {-32700, -32600, -32601, -32602, -32001}
NASTY = [
    *json_forms.NASTY,
    10**400,
    "9" * 400,
    "x" * 70_000,
    [[[[[]]]]],
    [None, 1, "x", {}],
    {"xml": "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"},
    {"self": 1, "call": 2, "params": 3},
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=50)
    | st.just(ID),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=10,
)


def fields(verb):
    info = inspect.type_info(VERBS[verb].params)
    assert isinstance(info, inspect.StructType)
    return info.fields


def good(verb):
    return {field.encode_name: sample(field.type) for field in fields(verb) if field.required}


def check(verb, reply):
    """An answer of JSON-RPC, and no defect."""
    assert reply["jsonrpc"] == "2.0"
    assert ("result" in reply) is not ("error" in reply)
    if "result" in reply:
        assert reply["result"] is not None
        return
    error = reply["error"]
    assert error["code"] in PROTOCOL or error["code"] in codes.table(), (verb, error)
    assert "Internal error" not in error["message"], (verb, error)
    assert error.get("data", {}).get("kind") != "InternalError"
    assert 0 < len(error["message"]) < 5000
    if VERBS[verb].run is None:
        assert error["code"] in (44, -32602), verb


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_nasty_value_of_any_parameter_is_no_defect(shared_api, namespace, policy):
    for verb in NAMESPACES[namespace]:
        for field in fields(verb):
            for value in NASTY:
                params = {**good(verb), field.encode_name: value}
                check(verb, await shared_api.ask(verb, params, POLICIES[policy]))


@pytest.mark.parametrize("policy", POLICIES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_any_json_as_parameters_is_no_defect(shared_api, policy, data):
    verb = data.draw(st.sampled_from(sorted(VERBS)))
    names = [field.encode_name for field in fields(verb)] or ["x"]
    some = st.dictionaries(st.sampled_from(names) | st.text(max_size=8), JSON, max_size=4)
    params = data.draw(st.one_of(some.map(lambda more: good(verb) | more), st.lists(JSON, max_size=20)))
    check(verb, await shared_api.ask(verb, params, POLICIES[policy]))


@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_positional_parameters_mean_the_same_as_named_ones(shared_api, namespace):
    for verb in NAMESPACES[namespace]:
        named = good(verb)
        if list(named) != [field.encode_name for field in fields(verb)][: len(named)]:
            continue  # an optional parameter stands between required ones
        first = await shared_api.ask(verb, named, ENGINE)
        second = await shared_api.ask(verb, list(named.values()), ENGINE)
        assert first.get("error", {}).get("code") == second.get("error", {}).get("code"), verb


async def test_unknown_names_are_ignored_on_the_engines_port_and_refused_elsewhere(api):
    params = {"vmID": ID, "noSuchName": [1, 2, {"x": None}]}
    counted = 'vdsm_rpc_unknown_parameters_total{verb="VM.desktopLock"} '
    before = metrics.render().decode().partition(counted)[2].split("\n")[0]
    assert (await api.ask("VM.desktopLock", params, ENGINE))["error"]["code"] == 44
    after = metrics.render().decode().partition(counted)[2].split("\n")[0]
    assert float(after) == float(before or 0) + 1
    refused = (await api.ask("VM.desktopLock", params, OWN))["error"]
    assert (refused["code"], "'noSuchName'" in refused["message"]) == (-32602, True)


DEEP = 200_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"{",
        b"[" * DEEP,
        b"[" * 50_000 + b"]" * 50_000,
        b'{"a":' * 90_000,
        b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":{"message":' + b"[" * 5000 + b"]" * 5000 + b"}}",
        b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":{"message":NaN}}',
        b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":{"message":Infinity}}',
        b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":{"message":1e999999}}',
        b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":{"message":' + b"9" * 1_000_000 + b"}}",
        b'{"jsonrpc":"2.0","method":"Host.echo","id":' + b"9" * 5000 + b"}",
        b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":{"message":"\xff\xfe"}}',
        b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":{"message":"\xed\xa0\x80"}}',
        b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":{"message":"\\ud800"}}',
        b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":{"message":"x"},}',
        b"\xef\xbb\xbf{}",
        b'[{"jsonrpc":"2.0"}]' * 2,
        b"[" + b"1," * 99 + b"1]",
        b"[" + b"1," * 100 + b"1]",
        b"1" * 10_000_000,
        b'"' + b"x" * 10_000_000 + b'"',
    ],
    ids=lambda body: body[:60].decode("ascii", "replace"),
)
async def test_hostile_body_is_refused_by_the_book(shared_api, body):
    reply = json.loads(await shared_api.raw(body, ENGINE))
    for member in reply if isinstance(reply, list) else [reply]:
        assert member["error"]["code"] in PROTOCOL
        assert "Internal" not in member["error"]["message"]


async def test_of_two_equal_names_the_last_counts(api):
    body = b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":{"message":"a","message":"b"}}'
    assert json.loads(await api.raw(body))["result"] == "b"


async def test_hostile_bodies_leave_no_memory_behind(api):
    async def round_of_bodies():
        for size in (1000, 50_000):
            await api.raw(b"[" * size, ENGINE)
            await api.raw(b'{"jsonrpc":"2.0","method":"' + b"m" * size + b'","id":1}', ENGINE)
            names = ",".join(f'"{i}":{i}' for i in range(size // 10))
            await api.raw(b'{"jsonrpc":"2.0","method":"VM.desktopLock","id":1,"params":{%b}}' % names.encode(), ENGINE)

    await round_of_bodies()
    tracemalloc.start()
    try:
        await round_of_bodies()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            await round_of_bodies()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 200_000
