# SPDX-License-Identifier: GPL-2.0-or-later
"""From an exception to the error on the wire: ``code``, ``message``, ``data``.

Clients of the field drop ``data``, so what a person must know is in the message; ``data`` adds the error's kind,
the remedy and the chain of causes. Only texts that were written as errors of this agent reach the wire: any
other exception becomes "internal error" with a number that finds it in the log.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from vdsm.api import default_codes
from vdsm.api.codes import code_for
from vdsm.api.defects import Defects
from vdsm.common.errors import AgentError, RemoteError

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = default_codes.INTERNAL_ERROR
SHUTTING_DOWN = 3001

MAX_MESSAGE = 4000
MAX_CAUSES = 5


class NoSuchVerb(AgentError):
    verb: str
    msg = "Method not found: {self.verb}"


class NotBuilt(AgentError):
    """A verb of the contract that this agent knows and does not do yet; its parameters were checked."""

    verb: str
    msg = "{self.verb} is not built yet in this agent: nothing was done"
    remedy = "Run 'vdsm doctor --api': it lists what is built; a host with VDSM can do the rest meanwhile"


class TooManyCalls(AgentError):
    who: str
    waiting: int
    msg = "{self.waiting} calls of {self.who} wait for their turn already"
    remedy = "Wait for answers before calling again"


class SubjectHangs(AgentError):
    """What a call is about (a domain, a pool, a verb itself) hangs, and enough calls wait for it."""

    about: str
    verb: str
    seconds: int
    waiting: int
    msg = "{self.about} hangs: {self.verb} has run for {self.seconds} s, and {self.waiting} more calls wait behind it"
    remedy = "Look at what it waits for (its storage, its guest), or end it; what it was asked before still counts"


class VmHangs(SubjectHangs):
    """The same of a VM."""


class RecoveryInProgress(AgentError):
    msg = "The agent is starting and recovers its VMs"
    remedy = "Call again in a few seconds"


@dataclass(frozen=True)
class WireError:
    code: int
    message: str
    data: dict[str, Any] = field(default_factory=dict)


def to_wire(error: BaseException, verb: str, defects: Defects | None = None) -> WireError:
    """What the caller of ``verb`` is told; ``defects`` remembers what was logged, with its place."""
    defects = defects or Defects()
    if isinstance(error, RemoteError) and ":" not in error.kind:
        # an exception of another process of ours that was not written for people
        return _internal(error, verb, defects)
    if isinstance(error, AgentError):
        return WireError(code_for(error, verb), _cut(str(error)), _more(error))
    if isinstance(error, asyncio.CancelledError):
        return WireError(SHUTTING_DOWN, f"The agent is stopping; {verb} was ended", {"kind": "Stopping"})
    return _internal(error, verb, defects)


def _internal(error: BaseException, verb: str, defects: Defects) -> WireError:
    incident = defects.report(error, verb)
    text = f"Internal error in {verb}: incident {incident} in the agent's log says more"
    return WireError(default_codes.of_defect(verb), text, {"kind": "InternalError", "incident": incident})


def _more(error: AgentError) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": type(error).__name__}
    if error.remedy:
        data["remedy"] = _cut(error.remedy.format(self=error))
    if chain := _chain(error):
        data["chain"] = chain
    return data


def _chain(error: BaseException) -> list[dict[str, str]]:
    causes: list[dict[str, str]] = []
    cause = error.__cause__
    while cause is not None and len(causes) < MAX_CAUSES:
        told = {"kind": type(cause).__name__}
        if isinstance(cause, AgentError):
            told["message"] = _cut(str(cause))
        causes.append(told)
        cause = cause.__cause__
    return causes


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "…"
