# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages as bytes and as values, for all ways alike. Pure.

Who listens at an address need not be an agent, and an agent may be broken: whatever comes from there is an answer,
an event, or a `ConnectionLost` that says what was wrong with it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vdsm.client.errors import ConnectionLost, RpcError, Unsendable

# an agent takes 16 MiB; a short question may have a longer answer, such as the volumes of a large domain
MAX_ANSWER = 64 << 20


def request(method: str, number: int, params: Any, flow_id: str) -> bytes:
    """The call as JSON; ``flow_id`` travels beside it, and must be fit for a header. Raises `Unsendable`."""
    if not flow_id.isprintable():
        raise Unsendable(method, f"flow id {flow_id!r}: it is not printable")
    call: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": number}
    if params is not None:
        call["params"] = params
    try:
        return msgspec.json.encode(call)
    except UnicodeEncodeError as e:
        raise Unsendable(method, f"text that is not Unicode ({e.reason})") from None
    except RecursionError:
        raise Unsendable(method, "parameters that are nested too deep") from None


def with_flow_id(call: bytes, flow_id: str) -> bytes:
    """As a member of the call, where no header carries it. Not decoded for it: a call may be large."""
    return b'{"flow_id":' + msgspec.json.encode(flow_id) + b"," + call[1:]


def decode(data: bytes, where: str) -> dict[str, Any]:
    try:
        message = msgspec.json.decode(data)
    except RecursionError:
        raise ConnectionLost(where, "it sent JSON that is nested too deep") from None
    except ValueError as e:  # msgspec's own errors, and bytes that are not UTF-8
        raise ConnectionLost(where, f"it sent what is no JSON: {e}") from None
    if not isinstance(message, dict):
        raise ConnectionLost(where, "it sent JSON that is no object")
    return message


def answered(message: dict[str, Any], where: str) -> int | None:
    """The number of the call that the message answers; None where the agent could not tell which it was."""
    number = message.get("id")
    if number is None:
        return None
    if type(number) is not int:  # true and 1.0 equal 1, and are no number that we gave
        raise ConnectionLost(where, "it answered a call that was never made")
    return number


def result(answer: dict[str, Any], method: str, where: str) -> Any:
    """What the verb returned. Raises `RpcError`, and `ConnectionLost` for an error that says nothing."""
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict) or type(error.get("code")) is not int or not isinstance(error.get("message"), str):
        raise ConnectionLost(where, "it answered with an error that has no code or no message")
    raise RpcError(method, error["code"], error["message"], error.get("data"))
