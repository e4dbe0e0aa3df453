# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage connections on the wire: each kind typed, a wrong form refuses the whole call by its name."""

import pytest

from storage.connections import ConnectionResult
from storage.servers.kinds import LocalFolder, NfsExport, NfsVersion, PosixMount
from vdsm.api import registry
from vdsm.api.call import Call
from vdsm.api.params import Unknown, convert
from vdsm.api.roles import Identity, Role
from vdsm.common.ids import BLANK_UUID

# as engines send it: all of it, most of it empty
EMPTY = dict.fromkeys(("port", "iqn", "user", "password", "ipv6_enabled"), "")
CONNECT, DISCONNECT = "StoragePool.connectStorageServer", "StoragePool.disconnectStorageServer"


def params(number, *connections):
    parts = [{**EMPTY, "id": "c", **connection} for connection in connections]
    return {"storagepoolID": BLANK_UUID, "domainType": number, "connectionParams": parts}


@pytest.fixture
def asked(api):
    """What the storage was asked for."""
    seen = []

    async def answer(connections):
        seen.append(connections)
        return [ConnectionResult(c.connection_id, None) for c in connections]

    api.agent.storage.connections.connect = api.agent.storage.connections.disconnect = answer
    return seen


@pytest.mark.parametrize("verb", [CONNECT, DISCONNECT])
@pytest.mark.parametrize(
    ("number", "sent", "typed"),
    [
        (1, {"connection": "s:/x"}, NfsExport("c", "s:/x")),
        (1, {"connection": "s:/x", "vfs_type": "ext4"}, NfsExport("c", "s:/x")),
        (
            1,
            {"connection": "s:/x", "protocol_version": "4.2", "timeout": "600", "retrans": 6, "mnt_options": "ro"},
            NfsExport("c", "s:/x", NfsVersion.V4_2, 600, 6, "ro"),
        ),
        (1, {"connection": "s:/x", "protocol_version": 4}, NfsExport("c", "s:/x", NfsVersion.V4)),
        (1, {"connection": "s:/x", "protocol_version": "auto"}, NfsExport("c", "s:/x", NfsVersion.AUTO)),
        (4, {"connection": "/x", "mnt_options": "ro"}, LocalFolder("c", "/x")),
        (
            6,
            {"connection": "/dev/x", "vfs_type": "xfs", "mnt_options": "ro", "timeout": "soon"},
            PosixMount("c", "/dev/x", "xfs", "ro"),
        ),
    ],
    ids=range(7),
)
async def test_each_kind_has_what_it_uses(api, asked, verb, number, sent, typed):
    assert (await api.ask(verb, params(number, sent)))["result"] == [{"id": "c", "status": 0}]
    assert asked == [[typed]]


@pytest.mark.parametrize("verb", [CONNECT, DISCONNECT])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("protocol_version", value) for value in ("2", "5", "4.3", "3.0", "V3", "nfs", "4.", "auto ")),
        *((name, value) for name in ("timeout", "retrans") for value in ("0", "-1", "1.5", "x", "1e3", "9999999", "٣")),
    ],
)
async def test_a_wrong_form_fails_the_whole_call_by_its_name(api, asked, verb, name, value):
    answer = await api.ask(verb, params(1, {"connection": "s:/x"}, {"connection": "s:/y", name: value}))
    assert answer["error"]["code"] == 1000
    assert f"'connectionParams[1].{name}'" in answer["error"]["message"]
    assert asked == []


@pytest.mark.parametrize("number", [2, 3, 7])
async def test_a_kind_that_is_not_built_fails_the_whole_call(api, asked, number):
    answer = await api.ask(CONNECT, params(number, {"connection": "s:/x"}))
    assert answer["error"]["code"] == 372
    assert asked == []


async def test_an_empty_list_is_refused_to_connect_and_nothing_to_disconnect(api, asked):
    assert (await api.ask(CONNECT, params(1)))["error"]["code"] == 1000
    assert (await api.ask(DISCONNECT, params(1)))["result"] == []


@pytest.mark.parametrize("verb", [CONNECT, DISCONNECT])
async def test_a_server_that_is_dead_keeps_no_later_call_of_its_connection_waiting(api, verb):
    """The work has its place in the order when it was asked for, before anything of it is done."""
    steps = []

    def asked(connections):
        steps.append("asked")

        async def results():
            steps.append("done")
            return []

        return results()

    api.agent.storage.connections.connect = api.agent.storage.connections.disconnect = asked
    identity = Identity("engine", Role.ADMIN)
    entry = registry.load()[verb]
    call = Call(api.agent, identity, "flow", "test", in_order=lambda: steps.append("in order"))
    await entry.run(call, convert(verb, entry.params, params(1, {"connection": "s:/x"}), Unknown.REFUSE))
    assert steps == ["asked", "in order", "done"]
