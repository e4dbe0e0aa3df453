# SPDX-License-Identifier: GPL-2.0-or-later
"""The scripts of one point, one after the other, over one document.

    exit 0    go on
    exit 1    failed; the others still run
    exit 2    failed; no further script
    else      failed; the others still run (codes above 2 are reserved, a signal's is negative)

Edits of a failed script stay. A script that leaves a document that can't be used has failed and ends the
run; the document is then what it was before that script. A script at its time limit is killed and has
failed. At a point that aborts, one refused script keeps all from running: the operation
fails anyway.

A `Runner` keeps nothing between runs: the same point may run for many VMs at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vdsm.common import logs
from vdsm.hooking.contents import difference, problem
from vdsm.hooking.directory import Script
from vdsm.hooking.document import Document, UnreadableDocument
from vdsm.hooking.environment import FILE_OF_JSON, FILE_OF_XML
from vdsm.hooking.limits import Limits
from vdsm.hooking.points import Data, Point
from vdsm.hooking.process import Ended, Identity, run_script
from vdsm.hooking.records import REFUSED_CODE, Result, RunRecord, ScriptRecord

log = logging.getLogger("vdsm.hooks")

STOP_CODE = 2


@dataclass(frozen=True)
class Outcome:
    """``text``: the document as the scripts left it, whether or not the point uses it."""

    text: str
    record: RunRecord


class Runner:
    def __init__(self, limits: Limits, identity: Identity | None = None) -> None:
        self._limits = limits
        self._identity = identity

    async def run(
        self, point: Point, scripts: Sequence[Script], text: str, env: Mapping[str, str], *, vm_id: str = ""
    ) -> Outcome:
        """Raises OSError when no file or process can be made; a script's failure is in the record."""
        started_at_s, started = time.time(), time.monotonic()
        refused = any(script.refused for script in scripts)
        if refused and point.aborts:
            records = [_refusal(script) for script in scripts if script.refused]
        else:
            with Document(text, self._identity) as document:
                name = FILE_OF_JSON if point.data is Data.JSON else FILE_OF_XML
                run = _Run(self._limits, self._identity, point, document, {**env, name: document.path}, text)
                await run.all(scripts, started + self._limits.point_s(point.name))
            text, records = run.text, run.records
        seconds = time.monotonic() - started
        record = RunRecord(point.name, started_at_s, seconds, tuple(records), vm_id, logs.flow_id.get())
        return Outcome(text, record)


class _Run:
    """One run; ``text`` is the last document that could be used."""

    def __init__(
        self,
        limits: Limits,
        identity: Identity | None,
        point: Point,
        document: Document,
        env: Mapping[str, str],
        text: str,
    ) -> None:
        self.text = text
        self.records: list[ScriptRecord] = []
        self._limits = limits
        self._identity = identity
        self._point = point
        self._document = document
        self._env = env

    async def all(self, scripts: Sequence[Script], end: float) -> None:
        for script in scripts:
            left_s = end - time.monotonic()
            if script.refused:
                record = _refusal(script)
            elif left_s <= 0:
                limit_s = self._limits.point_s(self._point.name)
                record = ScriptRecord(
                    script.name, Result.NOT_RUN, f"was not run: the point's {limit_s:g} s were used up", REFUSED_CODE
                )
            else:
                record = await self._one(script, *self._limit(script, left_s))
            self.records.append(record)
            if record.result is Result.BROKE_DOCUMENT or (record.result is Result.FAILED and record.code == STOP_CODE):
                break

    def _limit(self, script: Script, left_s: float) -> tuple[float, str]:
        """Seconds for this script, and the limit as people know it."""
        own_s = self._limits.script_s(self._point.name, script.name)
        point_s = self._limits.point_s(self._point.name)
        if own_s <= left_s:
            return own_s, f"{own_s:g} s"
        if not self.records:
            return left_s, f"{point_s:g} s"
        return left_s, f"the {left_s:.3g} s that were left of its point's {point_s:g} s"

    async def _one(self, script: Script, timeout_s: float, within: str) -> ScriptRecord:
        started_at_s = time.time()
        ended = await run_script(script.path, env=self._env, timeout_s=timeout_s, identity=self._identity)
        log.info("%s: rc=%d err=%r", script.path, ended.code, ended.stderr)
        result, reason = _judge(ended, within)
        if ended.code > STOP_CODE:
            log.warning("%s: exit code %d is reserved", script.path, ended.code)
        record = ScriptRecord(
            script.name, result, reason, ended.code, started_at_s, ended.seconds, ended.stderr, ended.stderr_bytes
        )
        return await self._look_at_document(record)

    async def _look_at_document(self, record: ScriptRecord) -> ScriptRecord:
        before, data = self.text, self._point.data
        try:
            after = self._document.read()
        except UnreadableDocument as e:
            return self._broken(record, str(e), "")
        if after == before:
            return record
        # a big document takes a while, and the loop has others to serve
        wrong = await asyncio.to_thread(problem, data, before, after) if self._point.output_used else ""
        diff = await asyncio.to_thread(difference, data, before, after)
        if wrong:
            return self._broken(record, wrong, diff)
        self.text = after
        return replace(record, diff=diff)

    def _broken(self, record: ScriptRecord, wrong: str, diff: str) -> ScriptRecord:
        if not self._point.output_used:  # nobody reads it, so nobody minds
            return replace(record, diff=diff)
        ending = record.reason or f"ended with exit code {record.code}"
        return replace(record, result=Result.BROKE_DOCUMENT, reason=f"{ending} and left {wrong}", diff=diff)


def _judge(ended: Ended, within: str) -> tuple[Result, str]:
    if ended.timed_out:
        return Result.TIMED_OUT, f"did not end within {within} and was killed (exit code {ended.code})"
    if ended.code < 0:
        try:
            name = signal.Signals(-ended.code).name
        except ValueError:  # a real-time signal has no name of its own
            name = f"signal {-ended.code}"
        return Result.FAILED, f"was killed by {name} (exit code {ended.code})"
    if ended.code:
        return Result.FAILED, f"ended with exit code {ended.code}"
    return Result.DONE, ""


def _refusal(script: Script) -> ScriptRecord:
    reason = f"was refused (exit code {REFUSED_CODE}): {script.refused}"
    return ScriptRecord(script.name, Result.REFUSED, reason, REFUSED_CODE, time.time())
