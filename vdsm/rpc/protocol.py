# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON-RPC 2.0 as pure functions: what a message is, and what is refused before anything runs.

Limits: a message has at most `MAX_MESSAGE` bytes and `MAX_ITEMS` separators (decoding deep or wide JSON
costs far more time than its size suggests, and holds the interpreter while it does), a batch at most
`MAX_BATCH` members. A message over `LARGE` bytes is decoded in a worker thread.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vdsm.api.errors import INVALID_REQUEST, PARSE_ERROR, WireError

MAX_MESSAGE = 16 * 1024 * 1024
MAX_ITEMS = 100_000
MAX_BATCH = 100
MAX_ID = 256  # characters
LARGE = 1024 * 1024

_decode = msgspec.json.Decoder().decode


class Refused(Exception):
    """The message, or one member of a batch, is no call."""

    def __init__(self, code: int, message: str, reason: str) -> None:
        super().__init__(reason)
        self.error = WireError(code, message, {"reason": reason})


def decode(data: bytes) -> Any:
    """The message as an object, or a batch as a list of at least one. Raises `Refused`."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_ITEMS:
        raise too_much(f"the message has more than {MAX_ITEMS} values")
    try:
        message = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(PARSE_ERROR, "Parse error", "the message is no JSON in UTF-8") from None
    except RecursionError:
        raise Refused(PARSE_ERROR, "Parse error", "the JSON is nested too deeply") from None
    if isinstance(message, list):
        if not message:
            raise Refused(INVALID_REQUEST, "Invalid Request", "the batch is empty")
        if len(message) > MAX_BATCH:
            raise too_much(f"the batch has more than {MAX_BATCH} members")
    return message


def check(member: Any) -> None:
    """Raise `Refused` when ``member`` is no request object."""
    if not isinstance(member, dict):
        raise _invalid("a request is an object")
    if member.get("jsonrpc") != "2.0":
        raise _invalid("member 'jsonrpc' must be \"2.0\"")
    method = member.get("method")
    if not isinstance(method, str):
        raise _invalid("member 'method' must be text")
    if not isinstance(member.get("params", ()), dict | list | tuple):
        raise _invalid("member 'params' must be an object or an array")
    identifier = member.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int | float | None):
        raise _invalid("member 'id' must be text, a number or null")
    if isinstance(identifier, str) and len(identifier) > MAX_ID:
        raise _invalid(f"member 'id' is longer than {MAX_ID} characters")


def too_much(reason: str) -> Refused:
    """A limit of ours: the specification has no wording for it, so the message says which."""
    return Refused(INVALID_REQUEST, f"Invalid Request: {reason}", reason)


def _invalid(reason: str) -> Refused:
    return Refused(INVALID_REQUEST, "Invalid Request", reason)


def result(identifier: Any, value: Any) -> bytes:
    """A reply. Raises TypeError or ValueError when ``value`` is no JSON."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": identifier, "result": True if value is None else value})


def failure(identifier: Any, error: WireError) -> bytes:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data:
        body["data"] = error.data
    return msgspec.json.encode({"jsonrpc": "2.0", "id": identifier, "error": body})


def batch(replies: list[bytes]) -> bytes:
    return b"[" + b",".join(replies) + b"]"


def notification(method: str, params: Any) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params})
