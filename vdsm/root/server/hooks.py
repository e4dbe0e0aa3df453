# SPDX-License-Identifier: GPL-2.0-or-later
"""Hook points that run as root: network setup, and before the agent serves.

The caller names a point of the table and hands over its document, nothing else: no path, no environment.
Only scripts that root owns and nobody else can write are run, in directories of which the same is true up
to the root of the file system.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.types import Json
from vdsm.hooking import environment
from vdsm.hooking.contents import MAX_BYTES, problem
from vdsm.hooking.directory import Directories, trust_of
from vdsm.hooking.document import sweep
from vdsm.hooking.limits import Limits
from vdsm.hooking.points import Data, Point, find
from vdsm.hooking.runner import Runner
from vdsm.root.server.registry import Helper, root_verb

_MAX_TIMEOUT_S = 3600.0


class NotARootPoint(AgentError):
    point: str
    msg = "The scripts of {self.point} do not run as root"


class HooksRun(msgspec.Struct, forbid_unknown_fields=True):
    point: str
    text: str
    timeout_s: float
    script_timeouts_s: Mapping[str, float] = {}


@root_verb("Hooks.run", HooksRun)
async def run(helper: Helper, params: HooksRun) -> Json:
    """``{"text": document, "record": RunRecord}``; no record when nothing is installed. Failures are in the record."""
    point = find(params.point)
    if not point.as_root:
        raise NotARootPoint(point.name)
    _check(point, params)
    scripts = Directories(helper.paths.hooks, trust_of(os.geteuid())).scripts(point.name)
    if not scripts:
        return {"text": params.text, "record": None}
    sweep()
    limits = Limits(params.timeout_s, params.script_timeouts_s)
    outcome = await Runner(limits).run(point, scripts, params.text, environment.base())
    return {"text": outcome.text, "record": outcome.record.to_json()}


def _check(point: Point, params: HooksRun) -> None:
    if len(params.text) > MAX_BYTES:
        raise InvalidParameter("text", f"{len(params.text)} characters", f"at most {MAX_BYTES} are allowed")
    if point.data is Data.NOTHING and params.text:
        raise InvalidParameter("text", f"{len(params.text)} characters", f"{point.name} has no document")
    wrong = problem(point.data, "", params.text) if params.text else ""
    if wrong:
        raise InvalidParameter("text", wrong, f"{point.name} takes {point.data}")
    for seconds in (params.timeout_s, *params.script_timeouts_s.values()):
        if not 0 < seconds <= _MAX_TIMEOUT_S:
            raise InvalidParameter("timeout_s", str(seconds), f"more than 0 and at most {_MAX_TIMEOUT_S:g} seconds")
