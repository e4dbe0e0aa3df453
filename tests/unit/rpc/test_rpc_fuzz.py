# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever comes, what goes out is JSON-RPC, and nothing else happens."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "method": st.sampled_from(["sum", "subtract", "Volume.delete", "Host.ping2", "Host.defect", "", "__init__"])
        | JSON,
        "params": JSON,
        "id": JSON,
        "flow_id": JSON,
    },
)
MESSAGE = (REQUEST | st.lists(REQUEST) | JSON).map(lambda value: json.dumps(value).encode()) | st.binary()


def check(reply):
    assert reply["jsonrpc"] == "2.0"
    assert "id" in reply
    assert ("result" in reply) is not ("error" in reply)
    if "error" in reply:
        assert isinstance(reply["error"]["code"], int)
        assert isinstance(reply["error"]["message"], str)
        assert "swordfish" not in reply["error"]["message"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(message=MESSAGE)
async def test_any_message_is_answered_by_json_rpc_or_not_at_all(server, message):
    data = await server.ask(message)
    if data is None:
        return
    reply = json.loads(data)
    if isinstance(reply, list):
        assert reply
    for member in reply if isinstance(reply, list) else [reply]:
        check(member)
