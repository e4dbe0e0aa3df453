# SPDX-License-Identifier: GPL-2.0-or-later
"""Bodies of messages: each is answered by the book of JSON-RPC 2.0, or asks for no answer and gets none.

The dispatcher is the real one with every verb under its name, role and parameter types; only what a verb does is taken
away: a built one answers with the parameters that it got. A record of level ERROR in the log is a finding too (the
dispatcher turns any defect into an answer and such a record), and so is a line of the audit log that is not one line.

An input is one byte that says who calls (bits: policy, whether the agent is ready, whether it has started; two for the
role), and the body.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from contrib.fuzz import json_forms
from contrib.fuzz.target import Target
from contrib.lab.wrong_input import sample
from vdsm.api import registry
from vdsm.api.call import Agent, Call
from vdsm.api.registry import Verb, Verbs
from vdsm.api.roles import Identity, Role
from vdsm.rpc import protocol
from vdsm.rpc.dispatcher import ENGINE, OWN, Caller, Dispatcher, Policy

MAX_TEXT = 5000


class _Watch(logging.Handler):
    """Remembers what must not be logged."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        cause = record.exc_info[1] if record.exc_info else None
        if record.levelno >= logging.ERROR:
            self.wrong.append(cause or AssertionError(text))
        elif not text.isprintable():
            self.wrong.append(AssertionError(f"not one line: {text!r}"))


async def _echo(call: Call, params: Any) -> Any:
    return params


def _verbs() -> Verbs:
    return {name: _without_work(entry) for name, entry in registry.load().items()}


def _without_work(entry: Verb) -> Verb:
    return entry if entry.run is None else dataclasses.replace(entry, run=_echo)


class _Now:
    """What the input says of the agent's state."""

    ready = True
    started = True


VERBS = _verbs()
_AGENT = cast("Agent", SimpleNamespace())
_DISPATCHER = Dispatcher(_AGENT, VERBS, ready=lambda: _Now.ready, started=lambda: _Now.started)
_LOOP = asyncio.new_event_loop()
_WATCH = _Watch()
_LOG = logging.getLogger("vdsm")


def run(data: bytes) -> None:
    flags, body = (data[0] if data else 0), data[1:]
    policy = ENGINE if flags & 1 else OWN
    caller = Caller(Identity("somebody", list(Role)[flags >> 3 & 3], "test"), "test", policy)
    _Now.ready, _Now.started = not flags & 2, not flags & 4
    before = _LOG.level, _LOG.propagate
    _WATCH.wrong = []
    _LOG.addHandler(_WATCH)
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False
    try:
        reply = _LOOP.run_until_complete(_DISPATCHER.answer(body, caller))
    finally:
        _LOG.removeHandler(_WATCH)
        _LOG.setLevel(before[0])
        _LOG.propagate = before[1]
    for wrong in _WATCH.wrong:
        raise wrong
    _check(body, reply, policy)


def _check(body: bytes, reply: bytes | None, policy: Policy) -> None:
    try:
        message = protocol.decode(body)
    except protocol.Refused as error:
        refused = error.error.code
    else:
        _check_answers(message, reply, policy)
        return
    assert reply is not None
    answer = json.loads(reply)
    assert (answer["id"], answer["error"]["code"]) == (None, refused)


def _check_answers(message: Any, reply: bytes | None, policy: Policy) -> None:
    asked = [wanted for member in (message if isinstance(message, list) else [message]) for wanted in _wanted(member)]
    if not asked:
        assert reply is None, "an answer to a notification"
        return
    assert reply is not None, "no answer"
    answers = json.loads(reply)
    single = not isinstance(message, list) or (policy.unwraps_single and len(message) == 1)
    assert isinstance(answers, dict if single else list)
    answers = [answers] if single else answers
    assert [msgspec.json.encode(answer["id"]) for answer in answers] == asked
    for answer in answers:
        _check_answer(answer)


def _wanted(member: Any) -> list[bytes]:
    """The id of the answer that a member of a message must get; nothing for a notification."""
    try:
        protocol.check(member)
    except protocol.Refused:
        return [b"null"]
    return [msgspec.json.encode(member["id"])] if "id" in member else []


def _check_answer(answer: dict[str, Any]) -> None:
    assert answer["jsonrpc"] == "2.0"
    assert answer.keys() - {"jsonrpc", "id"} in ({"result"}, {"error"}), answer
    if "error" in answer:
        code, message = answer["error"]["code"], answer["error"]["message"]
        assert type(code) is int
        assert 0 < len(message) <= MAX_TEXT
        assert "Internal error" not in message


def request(verb: str, identifier: int | None = 1, **more: Any) -> dict[str, Any]:
    """A call with parameters that the verb takes."""
    params = sample(msgspec.inspect.type_info(VERBS[verb].params))
    made = {"jsonrpc": "2.0", "method": verb, "params": params, **more}
    return made if identifier is None else {**made, "id": identifier}


def seeds() -> Iterator[bytes]:
    for number, verb in enumerate(sorted(VERBS)):
        yield bytes([number % 32]) + json.dumps(request(verb, flow_id="a1b2")).encode()
    ping = request("Host.ping2")
    for body in (
        [ping],
        [ping, request("VM.destroy", None), {**ping, "id": "x"}, 5, {}],
        [request("VM.destroy", None)],
        {**ping, "method": "Host.noSuch"},
        {**ping, "params": [1, 2]},
        {**ping, "params": None},
        {**ping, "id": None},
        {**ping, "id": 1.5},
        [],
    ):
        for flags in (b"\x18", b"\x19", b"\x06"):
            yield flags + json.dumps(body).encode()
    for deep in (b"[" * 2000, b"[" * 2000 + b"]" * 2000, b'{"a":' * 800):
        yield b"\x18" + deep


def mutate(data: bytes, rng: random.Random) -> bytes:
    flags = data[:1] if rng.random() < 0.7 and data else bytes([rng.randrange(32)])
    body = None if rng.random() < 0.05 else json_forms.changed(data[1:], rng)
    if body is None:
        some = [request(rng.choice(sorted(VERBS)), rng.choice((None, 1, 2))) for _ in range(rng.randint(1, 3))]
        body = json_forms.written(some if rng.random() < 0.3 else some[0], rng)
    return flags + body


TARGET = Target(
    run,
    seeds,
    max_bytes=4096,
    tokens=(b'"jsonrpc":"2.0"', b'"method":', b'"params":', b'"id":', b"1e400", b"\\ud800", b"\xed\xa0\x80", b"NaN"),
    mutate=mutate,
)
