# SPDX-License-Identifier: GPL-2.0-or-later
"""What the dispatcher decides: access, errors, turns, audit, and that calls outlive their callers."""

import asyncio
import json
import logging
import threading
import time

import pytest

from vdsm.api.roles import Identity, Role
from vdsm.common import masking
from vdsm.rpc import audit, protocol
from vdsm.rpc.dispatcher import ENGINE, OWN
from vdsm.rpc.turns import Turns

VOLUME = "6a3b1f0e-0000-4000-8000-000000000001"


def request(method, params=None, **more):
    message = {"jsonrpc": "2.0", "method": method, "id": 1, **more}
    if params is not None:
        message["params"] = params
    return json.dumps(message).encode()


async def ask(server, method, params=None, **more):
    return json.loads(await server.ask(request(method, params), **more))


@pytest.mark.parametrize(
    ("role", "verb", "allowed"),
    [
        (Role.READER, "Host.ping2", True),
        (Role.READER, "Volume.touch", False),
        (Role.READER, "Volume.delete", False),
        (Role.OPERATOR, "Volume.touch", True),
        (Role.OPERATOR, "Volume.delete", False),
        (Role.PEER, "Host.ping2", True),
        (Role.PEER, "Volume.touch", False),
        (Role.ADMIN, "Volume.delete", True),
    ],
)
async def test_role_decides(server, role, verb, allowed):
    reply = await ask(server, verb, {"volumeID": VOLUME} if verb == "Volume.delete" else None, role=role)
    denied = reply.get("error", {}).get("code") == -32001
    assert denied is not allowed
    if denied:
        assert verb in reply["error"]["message"]
        assert server.done == []


async def test_access_is_decided_before_parameters_are_looked_at(server):
    reply = await ask(server, "Volume.delete", {"nonsense": 1}, role=Role.READER)
    assert reply["error"]["code"] == -32001


async def test_agent_error_carries_code_message_kind_remedy_and_chain(server):
    reply = await ask(server, "Volume.touch")
    assert reply["error"] == {
        "code": 200,
        "message": "Disk sda is gone",
        "data": {"kind": "DiskGone", "remedy": "Plug disk sda in again", "chain": [{"kind": "OSError"}]},
    }


async def test_defect_reaches_the_log_and_not_the_wire(server, caplog):
    data = await server.ask(request("Host.defect"))
    assert b"swordfish" not in data
    error = json.loads(data)["error"]
    assert error["code"] == -32603
    assert error["data"]["incident"] in caplog.text
    assert "swordfish" in caplog.text


async def test_result_that_is_no_json_is_an_internal_error(server):
    assert (await ask(server, "Host.unencodable"))["error"]["code"] == -32603


async def test_unknown_method_is_named(server):
    reply = await ask(server, "Host.fly")
    assert reply["error"]["code"] == -32601
    assert "Host.fly" in reply["error"]["message"]


async def test_unknown_parameter_is_refused_or_ignored_as_the_transport_says(server):
    params = {"volumeID": VOLUME, "leafVolID": VOLUME}
    reply = await ask(server, "Volume.delete", params)
    assert reply["error"]["code"] == -32602
    assert "'leafVolID'" in reply["error"]["message"]
    reply = await ask(server, "Volume.delete", params, policy=ENGINE)
    assert reply["result"] is True
    assert server.done == [VOLUME]


async def test_parameter_named_like_our_own_variables_is_only_unknown(server):
    for name in ("context", "self", "params", "call"):
        reply = await ask(server, "Host.ping2", {name: 1})
        assert reply["error"]["code"] == -32602
        assert f"'{name}'" in reply["error"]["message"]


async def test_on_the_engines_port_every_verb_answers_99_until_vms_are_found(server):
    server.is_ready = False
    for name in ("Host.ping2", "Volume.touch"):
        assert (await ask(server, name, policy=ENGINE))["error"]["code"] == 99
    server.is_ready = True
    assert (await ask(server, "Host.ping2", policy=ENGINE))["result"] is True


async def test_a_change_of_networks_is_confirmed_and_the_api_described_from_the_first_moment(server):
    server.is_ready = server.has_started = False
    for policy in (OWN, ENGINE):
        for name in ("Host.confirmConnectivity", "rpc.discover"):
            assert (await ask(server, name, policy=policy))["result"] is True


async def test_own_port_reads_from_the_first_moment_and_changes_when_the_parts_run(server):
    server.is_ready = server.has_started = False
    assert (await ask(server, "get_data"))["result"] == ["hello", 5]
    assert (await ask(server, "Volume.delete", {"volumeID": VOLUME}))["error"]["code"] == 99
    server.has_started = True
    assert (await ask(server, "Volume.delete", {"volumeID": VOLUME}))["result"] is True


async def test_verb_that_is_not_built_says_so_after_access_and_parameters(server):
    params = {"vmID": VOLUME}
    assert (await ask(server, "VM.desktopLock", params, role=Role.READER))["error"]["code"] == -32001
    bad = (await ask(server, "VM.desktopLock", {"vmID": "x"}))["error"]
    assert (bad["code"], "'vmID'" in bad["message"]) == (-32602, True)
    error = (await ask(server, "VM.desktopLock", params))["error"]
    assert error["code"] == 44
    assert "VM.desktopLock is not built yet" in error["message"]
    assert "doctor --api" in error["data"]["remedy"]


async def test_only_the_client_that_filled_its_own_line_gets_1100(server, monkeypatch):
    turns = Turns(64, 2, max_line=3)
    monkeypatch.setattr(server.dispatcher, "_reads", turns)
    busy = [asyncio.create_task(server.ask(request("Host.wait"), client="busy")) for _ in range(2)]
    while server.done.count("started") < 2:
        await asyncio.sleep(0)
    busy += [asyncio.create_task(server.ask(request("Host.wait"), client="busy")) for _ in range(3)]
    while turns.waiting < 3:
        await asyncio.sleep(0)
    async with asyncio.timeout(2):
        error = (await ask(server, "get_data", client="busy"))["error"]
        assert error["code"] == 1100
        assert "tester" in error["message"]
        assert (await ask(server, "get_data", client="other"))["result"] == ["hello", 5]
    vital = asyncio.create_task(ask(server, "Host.getStats", client="busy"))
    await asyncio.sleep(0.01)
    assert not vital.done(), "it is delayed"
    server.gate.set()
    assert (await vital)["result"] is True
    assert all(json.loads(reply)["result"] is True for reply in await asyncio.gather(*busy))


async def test_changing_call_leaves_one_audit_line_without_secrets(server, caplog):
    caplog.set_level(logging.INFO, "vdsm.audit")
    await ask(server, "Volume.delete", {"volumeID": VOLUME, "password": "swordfish"})
    await ask(server, "Volume.delete", {"volumeID": "no"})
    await ask(server, "Host.ping2")
    lines = [record.getMessage() for record in caplog.records if record.name == "vdsm.audit"]
    assert lines[0] == f"Volume.delete by tester over test on volumeID={VOLUME}: done"
    assert lines[1].startswith("Volume.delete by tester over test on the host: failed with code -32602")
    assert len(lines) == 2
    assert "swordfish" not in caplog.text


def test_names_and_results_in_an_audit_line_are_bounded_and_on_one_line(caplog):
    caplog.set_level(logging.INFO, "vdsm.audit")
    audit.record("VM.destroy", Identity("joe\nVM.create by admin", Role.ADMIN, "x"), "stomp", {}, "x" * 100_000)
    (record,) = caplog.records
    assert record.getMessage().startswith("VM.destroy by 'joe\\nVM.create by admin' over stomp on the host: xxx")
    assert len(record.getMessage()) < 2500


@pytest.mark.parametrize(
    ("sent", "header", "kept"),
    [("abc", "", True), (None, "from-header", True), ("x" * 65, "", False), ("two\nlines", "", False), (5, "", False)],
)
async def test_flow_id_of_request_or_header(server, sent, header, kept):
    more = {} if sent is None else {"flow_id": sent}
    reply = json.loads(await server.ask(request("Host.flow", **more), flow_id=header))
    assert (reply["result"] == (sent or header)) is kept
    assert reply["result"]


async def test_cancelled_caller_cancels_nothing(server):
    caller = asyncio.create_task(server.ask(request("Host.wait")))
    while "started" not in server.done:
        await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    server.gate.set()
    await server.dispatcher.drain(5)
    assert server.done == ["started", "ended"]


async def test_drain_ends_what_does_not_end(server):
    caller = asyncio.create_task(server.ask(request("Host.wait")))
    while "started" not in server.done:
        await asyncio.sleep(0)
    await server.dispatcher.drain(0.05)
    assert json.loads(await caller)["error"]["code"] == 3001


async def test_waiting_calls_of_one_client_delay_neither_others_nor_urgent_verbs(server):
    busy = [asyncio.create_task(server.ask(request("Host.wait"), client="busy")) for _ in range(60)]
    while server.done.count("started") < 32:
        await asyncio.sleep(0)
    async with asyncio.timeout(2):
        assert (await ask(server, "get_data", client="other"))["result"] == ["hello", 5]
        assert (await ask(server, "Host.ping2", client="busy"))["result"] is True
    assert server.done.count("started") == 32
    server.gate.set()
    replies = await asyncio.gather(*busy)
    assert all(json.loads(reply)["result"] is True for reply in replies)


async def test_burst_of_one_client_does_not_run_as_a_block_before_anothers_call(server):
    """Each call holds the loop for 2 ms, as statistics of many VMs do; 200 of them come at once."""
    burst = [asyncio.create_task(server.ask(request("Host.getAllVmStats"), client="noisy")) for _ in range(200)]
    await asyncio.sleep(0)
    started = time.monotonic()
    assert (await ask(server, "Volume.touch", client="other"))["error"]["code"] == 200
    assert (await ask(server, "get_data", client="other"))["result"] == ["hello", 5]
    took_s = time.monotonic() - started
    done = sum(task.done() for task in burst)
    assert done < 50, f"{done} of the noisy client's calls came first"
    assert took_s < 0.2
    assert all(json.loads(reply)["result"] == [] for reply in await asyncio.gather(*burst)), "none is refused"


async def test_only_large_messages_are_decoded_in_a_worker(server, monkeypatch):
    threads = []

    def decode(data):
        threads.append(threading.current_thread())
        return original(data)

    original = protocol.decode
    monkeypatch.setattr(protocol, "decode", decode)
    await ask(server, "Host.flow", {"message": "x"})
    assert (await ask(server, "Host.flow", {"message": "x" * (2 << 20)}))["error"]["code"] == -32602
    assert threads[0] is threading.main_thread()
    assert threads[1] is not threading.main_thread()


async def test_large_message_does_not_hold_the_loop(server):
    message = request("Host.flow", {"message": "x" * (10 << 20)})
    worst, last = 0.0, asyncio.get_running_loop().time()

    async def watch():
        nonlocal worst, last
        while True:
            await asyncio.sleep(0.001)
            now = asyncio.get_running_loop().time()
            worst, last = max(worst, now - last), now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    reply = json.loads(await server.ask(message))
    watching.cancel()
    assert reply["error"]["code"] == -32602
    assert worst < 0.25


async def test_a_large_answer_is_searched_for_secrets_while_others_are_served(server, monkeypatch):
    served = threading.Event()
    hide = masking.hide_in

    def hide_in(value):
        assert served.wait(10), "nobody was served meanwhile"
        return hide(value)

    monkeypatch.setattr(masking, "hide_in", hide_in)
    ask = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "get_secrets"}).encode()
    large = asyncio.ensure_future(server.ask(ask, Role.READER))
    assert await server.ask(b'{"jsonrpc": "2.0", "id": 1, "method": "Host.ping2"}', Role.READER)
    served.set()
    answer = json.loads(await large)
    assert answer["id"] == 7
    assert answer["result"] == {
        "numbers": [1, 2.5, None, True],
        "texts": ["<graphics passwd='*****'/>"] * 10_000,
    }


async def test_what_was_encoded_before_goes_out_in_the_form_for_its_reader(server, monkeypatch):
    monkeypatch.setattr(masking, "is_suspect", lambda _encoded: pytest.fail("it is searched again"))
    ask = json.dumps({"jsonrpc": "2.0", "id": "a", "method": "get_encoded"}).encode()
    answers = {role: json.loads(await server.ask(ask, role)) for role in Role}
    assert answers.pop(Role.ADMIN) == {"jsonrpc": "2.0", "id": "a", "result": [{"full": "passwd='swordfish'"}]}
    assert list(answers.values()) == [{"jsonrpc": "2.0", "id": "a", "result": [{"masked": 1}]}] * 3
