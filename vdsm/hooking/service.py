# SPDX-License-Identifier: GPL-2.0-or-later
"""Hooks as the rest of the agent sees them: run a point over a document.

A point with nothing installed hands its input back at the price of one stat. Points that run as root are
handed to the root helper. A failure is raised at points that abort; at the others it is logged, counted,
published as the event ``|hook|failed|<vm or point>`` and the caller goes on. Every run is in the trace.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from vdsm.common import metrics
from vdsm.common.errors import AgentError
from vdsm.common.events import Events
from vdsm.common.paths import Paths
from vdsm.common.types import Json
from vdsm.hooking import environment
from vdsm.hooking.checksums import Checksums
from vdsm.hooking.directory import Directories
from vdsm.hooking.document import sweep
from vdsm.hooking.environment import HookVm
from vdsm.hooking.errors import HookFailed, HooksNotRun
from vdsm.hooking.limits import Limits
from vdsm.hooking.points import POINTS, Data, Point, find
from vdsm.hooking.records import RunRecord, from_json
from vdsm.hooking.runner import Outcome, Runner
from vdsm.hooking.trace import Trace, folder_of
from vdsm.root.client import Root

log = logging.getLogger("vdsm.hooks")

ROOT_VERB = "Hooks.run"
_ROOT_MARGIN_S = 10.0

_SECONDS = metrics.histogram("vdsm_hook_seconds", "Duration of one hook script", ("point", "script", "result"))
_FAILURES = metrics.counter("vdsm_hook_failures", "Runs of a hook point in which a script failed", ("point",))

_NO_ENVIRONMENT: Mapping[str, str] = {}


class Hooks:
    def __init__(
        self,
        *,
        paths: Paths,
        root: Root | None = None,
        default_timeout_s: float = 120.0,
        timeouts_s: Mapping[str, float] | None = None,
        events: Events | None = None,
        trace: Trace | None = None,
    ) -> None:
        """``timeouts_s``: seconds by point, or by "point/script". Without ``root`` all points run as ourselves."""
        self._paths = paths
        self._root = root
        self._limits = Limits(default_timeout_s, dict(timeouts_s or {}))
        self._events = events
        self._trace = trace or Trace(folder_of(paths))
        self._directories = Directories(paths.hooks)
        self._checksums = Checksums()
        self._runner = Runner(self._limits)
        self._base = environment.base()
        sweep()
        for complaint in self._limits.unknown_names():
            log.warning("%s", complaint)

    async def run_xml(
        self, point: str, xml: str | None, *, vm: HookVm | None = None, env: Mapping[str, str] = _NO_ENVIRONMENT
    ) -> str:
        """The XML as the scripts left it, where the point uses it; else the input (None as empty text).

        Raises `HookFailed` or `ForbiddenProperty` at points that abort, nothing at others.
        """
        return await self._run(_of_kind(point, Data.DOMAIN, Data.DEVICE), xml or "", vm, env)

    async def run_json(
        self, point: str, data: Json, *, vm: HookVm | None = None, env: Mapping[str, str] = _NO_ENVIRONMENT
    ) -> Any:
        """As `run_xml`, with data in place of XML."""
        text = json.dumps(data)
        result = await self._run(_of_kind(point, Data.JSON), text, vm, env)
        return data if result == text else json.loads(result)

    async def run_empty(
        self, point: str, *, vm: HookVm | None = None, env: Mapping[str, str] = _NO_ENVIRONMENT
    ) -> None:
        """Run a point with an empty document."""
        await self._run(find(point), "", vm, env)

    def installed(self) -> dict[str, dict[str, dict[str, str]]]:
        """``{point: {script: {"checksum": sha256}}}``, as capabilities report it."""
        found = {}
        for point in POINTS:
            scripts = self._directories.scripts(point)
            if scripts:
                found[point] = {script.name: {"checksum": self._checksums.of(script.path)} for script in scripts}
        return found

    async def _run(self, point: Point, text: str, vm: HookVm | None, env: Mapping[str, str]) -> str:
        try:
            outcome = await self._run_installed(point, text, vm, env)
        except (AgentError, OSError) as e:
            error = e if isinstance(e, AgentError) else HooksNotRun(point.name, str(e))
            self._tell_failure(point, vm, error)
            if point.aborts:
                raise error from None
            return text
        if outcome is None:
            return text
        failure = _failure(outcome.record)
        if failure is not None:
            self._tell_failure(point, vm, failure)
            if point.aborts:
                raise failure
        return outcome.text if point.output_used else text

    async def _run_installed(
        self, point: Point, text: str, vm: HookVm | None, env: Mapping[str, str]
    ) -> Outcome | None:
        if point.as_root and self._root is not None:
            outcome = await self._run_as_root(self._root, point, text)
        else:
            scripts = self._directories.scripts(point.name)
            if not scripts:
                return None
            composed, refused = environment.compose(self._base, env, vm)
            if refused and point.aborts:
                raise environment.refusal(refused)
            if refused:
                log.warning("%s: custom properties %s are left out", point.name, ", ".join(map(repr, refused)))
            outcome = await self._runner.run(point, scripts, text, composed, vm_id=vm.vm_id if vm else "")
        if outcome is not None:
            self._keep(outcome.record)
        return outcome

    async def _run_as_root(self, root: Root, point: Point, text: str) -> Outcome | None:
        if self._directories.is_empty(point.name):
            return None
        limit_s = self._limits.point_s(point.name)
        named = {name: seconds for name, seconds in self._limits.by_name.items() if name.startswith(point.name + "/")}
        params: dict[str, Json] = {"point": point.name, "text": text, "timeout_s": limit_s, "script_timeouts_s": named}
        answer = await root.call(ROOT_VERB, params, timeout_s=limit_s + _ROOT_MARGIN_S)
        return Outcome(answer["text"], from_json(answer["record"])) if answer["record"] else None

    def _keep(self, record: RunRecord) -> None:
        for script in record.scripts:
            _SECONDS.labels(record.point, script.script, str(script.result)).observe(script.seconds)
        self._trace.append(record)

    def _tell_failure(self, point: Point, vm: HookVm | None, error: AgentError) -> None:
        _FAILURES.labels(point.name).inc()
        vm_id = vm.vm_id if vm else ""
        log.warning("%s%s", f"VM {vm_id}: " if vm_id else "", error)
        if point.aborts or self._events is None:
            return
        params = {"point": point.name, "message": str(error), "vmId": vm_id}
        if isinstance(error, HookFailed):
            params.update(script=error.script, exitCode=str(error.code), stderr=error.stderr[-2000:])
        self._events.publish("hook", "failed", vm_id or point.name, params)


def _failure(record: RunRecord) -> HookFailed | None:
    failed = record.failure
    if failed is None:
        return None
    return HookFailed(record.point, failed.script, failed.code, failed.stderr, failed.reason)


def _of_kind(name: str, *kinds: Data) -> Point:
    point = find(name)
    if point.data not in kinds:
        raise ValueError(f"hook point {name} takes {point.data}, not {' or '.join(kinds)}")
    return point
