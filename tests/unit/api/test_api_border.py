# SPDX-License-Identifier: GPL-2.0-or-later
"""What an engine sees of every verb: forms of results, and what is answered while the agent starts."""

import json

import pytest
from test_api_fuzz import ID, good

from storage.connections import ConnectionResult
from storage.servers.errors import AccessRefused
from vdsm.api import contract, registry
from vdsm.api.roles import Role
from vdsm.common.errors import CommandFailed
from vdsm.rpc.dispatcher import ENGINE, OWN

VERBS = registry.load()
ROWS = contract.rows()
# engines take the result itself for a map of keys
OBJECTS = [
    "Host.fenceNode",
    "StoragePool.getInfo",
    "VM.backup_info",
    "VM.changeCD",
    "VM.cont",
    "VM.create",
    "VM.delete_checkpoints",
    "VM.hotplugNic",
    "VM.redefine_checkpoints",
    "VM.screenshot",
    "VM.start_backup",
]
STATUSES = [
    "Host.setHaMaintenanceMode",
    "Host.setKsmTune",
    "Host.setupNetworks",
    "VM.setBalloonTarget",
    "VM.setCpuTunePeriod",
    "VM.setCpuTuneQuota",
    "VM.setIoTune",
    "VM.stop_backup",
    "VM.updateVmPolicy",
]


@pytest.mark.parametrize("verb", OBJECTS)
def test_result_is_an_object_where_engines_look_into_it(verb):
    kind = ROWS[verb].result
    assert kind == "object" or isinstance(contract.bodies()[kind], dict)


def test_value_is_the_status_where_engines_read_it_as_such():
    assert sorted(name for name, row in ROWS.items() if row.result == "Status") == sorted(STATUSES)


async def test_setup_networks_answers_its_status(api):
    async def done(*_):
        return None

    api.agent.network.setup_networks = done
    assert await api.ask("Host.setupNetworks", {"networks": {}}) == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"code": 0, "message": "Done"},
    }


async def test_verb_without_a_value_answers_true_and_no_error_member(api):
    reply = await api.ask("Host.ping2", {})
    assert reply == {"jsonrpc": "2.0", "id": 1, "result": True}


async def test_error_has_a_code_of_32_bits_and_a_text_and_no_result(shared_api):
    for verb in VERBS:
        reply = await shared_api.ask(verb, {"vmID": 5}, ENGINE)
        if "error" in reply:
            assert "result" not in reply
            assert isinstance(reply["error"]["code"], int)
            assert abs(reply["error"]["code"]) < 1 << 31
            assert reply["error"]["message"]


async def test_notification_is_executed_and_not_answered(api):
    confirmed = []
    api.agent.network.confirm_connectivity = lambda: confirmed.append(True)
    assert await api.raw(b'{"jsonrpc":"2.0","method":"Host.confirmConnectivity"}', ENGINE) is None
    assert confirmed == [True]


@pytest.mark.parametrize(
    ("verb", "role", "counts"),
    [
        ("Host.ping", Role.ADMIN, True),
        ("Host.ping", Role.READER, False),
        ("Host.ping2", Role.ADMIN, False),
    ],
)
async def test_an_old_ping_confirms_connectivity_when_its_caller_may(api, verb, role, counts):
    confirmed = []
    api.agent.network.confirm_connectivity = lambda: confirmed.append(True)
    assert "result" in await api.ask(verb, {}, ENGINE, role=role)
    assert bool(confirmed) is counts


async def test_read_is_answered_from_the_first_moment_on_our_own_ports(shared_api):
    shared_api.is_ready = shared_api.is_started = False
    for verb in sorted(name for name, entry in VERBS.items() if entry.role is Role.READER):
        reply = await shared_api.ask(verb, good(verb))
        assert reply.get("error", {}).get("code") != -32603, verb
    for verb in ("Host.ping2", "Host.getJobs", "Host.getHardwareInfo", "rpc.discover"):
        assert "result" in await shared_api.ask(verb, {})


async def test_engine_is_told_to_wait_until_vms_are_found(shared_api):
    shared_api.is_ready = False
    for verb in sorted(VERBS):
        code = (await shared_api.ask(verb, good(verb), ENGINE)).get("error", {}).get("code")
        assert (code == 99) is (verb not in ("Host.confirmConnectivity", "rpc.discover")), verb


async def test_change_waits_for_the_parts_on_our_own_ports_too(api):
    api.is_started = False
    assert (await api.ask("StoragePool.setDescription", good("StoragePool.setDescription"), OWN))["error"]["code"] == 99


async def test_tasks_of_a_host_without_a_pool_are_refused_as_on_any_host_that_is_not_spm(api):
    for verb in ("Host.getAllTasksStatuses", "Host.getAllTasksInfo"):
        assert (await api.ask(verb, {}))["error"]["code"] == 654


async def test_batch_of_one_is_answered_by_an_object_on_the_engines_port_and_by_an_array_elsewhere(api):
    body = json.dumps([{"jsonrpc": "2.0", "id": "a", "method": "Host.echo", "params": {"message": "x"}}]).encode()
    answer = {"jsonrpc": "2.0", "id": "a", "result": "x"}
    assert json.loads(await api.raw(body, ENGINE)) == answer
    assert json.loads(await api.raw(body, OWN)) == [answer]


async def test_each_connection_has_a_code_that_engines_know(api):
    async def refused(connections):
        errors = (CommandFailed("mount", 32, "no"), AccessRefused("/x"), None)
        return [ConnectionResult(c.connection_id, e) for c, e in zip(connections, errors, strict=True)]

    api.agent.storage.connections.connect = refused
    params = {"storagepoolID": ID, "domainType": 4, "connectionParams": [{"id": name} for name in ("a", "b", "c")]}
    assert (await api.ask("StoragePool.connectStorageServer", params, ENGINE))["result"] == [
        {"id": "a", "status": 451, "reason": "Command 'mount' failed with code 32: no"},
        {"id": "b", "status": 469, "reason": str(AccessRefused("/x"))},
        {"id": "c", "status": 0},
    ]


async def test_the_reason_of_a_connection_that_failed_has_no_secret(api):
    async def refused(connections):
        return [ConnectionResult("a", CommandFailed("mount", 32, "bad option password=geheim1"))]

    api.agent.storage.connections.connect = refused
    params = {"storagepoolID": ID, "domainType": 4, "connectionParams": [{"id": "a"}]}
    (entry,) = (await api.ask("StoragePool.connectStorageServer", params, ENGINE))["result"]
    assert "bad option" in entry["reason"] and "geheim1" not in entry["reason"]
