# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the scripts of a point over a document, without a VM and without the agent.

The scripts really run, as the user they would run as when that can be done (only root can choose). They see
``VDSM_HOOK_DRY_RUN=1`` and may leave the host alone then. Nothing is written to the trace.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field

from vdsm.common.errors import AgentError, InvalidParameter
from vdsm.common.ids import new_uuid
from vdsm.hooking import environment
from vdsm.hooking.contents import difference, problem
from vdsm.hooking.directory import Directories, Trust, trust_of
from vdsm.hooking.limits import Limits
from vdsm.hooking.points import Data, Point, find
from vdsm.hooking.process import Identity
from vdsm.hooking.records import RunRecord
from vdsm.hooking.runner import Runner

AGENT_USER = "vdsm"
DRY_RUN = "VDSM_HOOK_DRY_RUN"


class NothingInstalled(AgentError):
    folder: str
    msg = "There is no script to run in {self.folder}"
    remedy = "'vdsm hooks lint' tells why a file there is not a script"


@dataclass(frozen=True)
class TriedVm:
    vm_id: str = field(default_factory=new_uuid)
    custom: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """``text``: what the point would have handed on; ``diff``: from the document to it; ``notes``: for the reader."""

    text: str
    diff: str
    record: RunRecord
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return self.record.failure is not None


async def try_point(
    hooks_folder: str,
    point_name: str,
    text: str,
    *,
    custom: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Trial:
    """Raises `UnknownPoint`, `InvalidParameter` (the document), `NothingInstalled`, `ForbiddenProperty`."""
    point = find(point_name)
    if not text and point.data not in (Data.NOTHING, Data.JSON):
        raise InvalidParameter("document", "nothing", f"{point.name} takes {point.data}: name a file with it")
    wrong = problem(point.data, "", text) if text else ""
    if wrong:
        raise InvalidParameter("document", wrong, f"{point.name} takes {point.data}")
    identity, trust, notes = _whom(point)
    scripts = Directories(hooks_folder, trust).scripts(point.name)
    if not scripts:
        raise NothingInstalled(os.path.join(hooks_folder, point.name))
    vm = None if point.data in (Data.NOTHING, Data.JSON) and not custom else TriedVm(custom=dict(custom or {}))
    env, refused = environment.compose({**environment.base(), DRY_RUN: "1"}, params or {}, vm)
    if refused:
        raise environment.refusal(refused)
    outcome = await Runner(limits or Limits(), identity).run(point, scripts, text, env, vm_id=vm.vm_id if vm else "")
    result = outcome.text if point.output_used else text
    if outcome.text != text and not point.output_used:
        notes.append(f"{point.name} ignores what scripts write: the document stays as it was")
    if not point.wired:
        notes.append(f"this version of the agent does not run {point.name} yet")
    return Trial(result, difference(point.data, text, result), outcome.record, tuple(notes))


def _whom(point: Point) -> tuple[Identity | None, Trust, list[str]]:
    """(user to run as when not ourselves, whose files may run, what to tell the reader)"""
    own = os.geteuid()
    if point.as_root:
        notes = [] if own == 0 else [f"{point.name} runs as root; tried as user {own}"]
        return None, trust_of(0 if own == 0 else own), notes
    try:
        agent = pwd.getpwnam(AGENT_USER)
    except KeyError:
        return None, trust_of(own), [f"there is no user {AGENT_USER} here; tried as user {own}"]
    if own == 0:
        return Identity(agent.pw_uid, agent.pw_gid), trust_of(agent.pw_uid), []
    notes = [] if own == agent.pw_uid else [f"{point.name} runs as {AGENT_USER}; tried as user {own}"]
    return None, Trust(frozenset({0, own, agent.pw_uid})), notes
