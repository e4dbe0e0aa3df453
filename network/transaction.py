# SPDX-License-Identifier: GPL-2.0-or-later
"""One change of networks, on the root side: journal, dead man's switch, steps, verify; then kept or undone.

    journal fsynced -> switch armed -> steps -> read back -> (the agent waits) -> committing -> configs -> cleared

A process that dies anywhere before *committing* leads to the old networks, after it to the new ones. Whatever fails
in between, of any kind, is undone at once; a journal that nobody waits for is ended before the next change begins.
Everything here blocks and runs in a worker thread of the helper.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from network import model, rollback
from network.errors import NotPending, NotWritten, RollbackIncomplete, SetupFailed
from network.journal import Folder, Journal, Phase, boot_id
from network.kernel import Kernel, StepFailed, opened
from network.plan import Change, plan, problems
from vdsm.common.crashpoints import crash_point

APPLY_S = 20.0
STEP_S = 0.1
"""So much longer for each step: of 80 networks there are 500."""
SPARE_S = 5.0
"""From when we give up by ourselves until the switch does it for us."""
# a Python's start, on a host that swaps or has just lost a disk
ARM_S = 30.0
LOCK_S = 10.0
# after a byte that disarms it; one that has fired waits for the lock first
SWITCH_END_S = rollback.LOCK_WAIT_S + 5.0
KILLED_S = 2.0

JOURNALED = crash_point("network.setup.journaled", "the journal is on disk, no switch is armed")
ARMED = crash_point("network.setup.armed", "the switch is armed, nothing is changed")
STEPS = {
    op: crash_point(f"network.setup.step.{op}", f"a step {op} is done, others are not")
    for op in ("bridge_add", "ipv6_set", "route_del", "addr_del", "link_set", "addr_add", "route_add")
}
STEP_REMOVED = crash_point("network.remove.step.link_del", "the bridge is gone, the journal is not")
VERIFIED = crash_point("network.setup.verified", "all is applied and read back, nothing is confirmed")
INTENT = crash_point("network.commit.intent", "the change is to be kept, no configuration says so")
RUNNING_WRITTEN = crash_point("network.commit.written", "configurations are written, the journal is there")
UNDONE = crash_point("network.rollback.undone", "all inverses have run, the journal is there")


class Switch:
    """The process that undoes one change when we can't."""

    def __init__(self, folder: Folder, journal_id: str) -> None:
        self.journal_id = journal_id
        with _failing("arming the rollback"):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "network.rollback", folder.path, journal_id],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                cwd="/",
            )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ARM_S)
        if not ready or os.read(self._process.stdout.fileno(), 16) != b"armed\n":
            self._end()
            raise SetupFailed("arming the rollback", f"its process is not ready after {ARM_S:g} s")

    @property
    def is_armed(self) -> bool:
        return self._process.poll() is None

    def disarm(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"d")
            self._process.stdin.close()
        except BrokenPipeError:  # it has fired and ended
            pass
        self._end(SWITCH_END_S)

    def _end(self, wait_s: float = 0.0) -> None:
        """Not waited for when it hangs in the kernel: the change has its end without it."""
        for seconds in (wait_s, KILLED_S):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
            self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Transactions:
    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._switch: Switch | None = None

    def setup(self, request: model.Request, *, wait_s: float, persist: bool) -> str:
        """Apply; the id of a change that now waits for `keep` or `undo`, at most ``wait_s``."""
        with self._alone() as kernel:
            return self._begin(kernel, request, wait_s, persist).id

    def restore(self, network: model.Network) -> None:
        """Let a network that waits since boot run again."""
        with self._alone() as kernel:
            self._keep(kernel, self._begin(kernel, model.Request({network.name: network}, ()), 0.0, False))

    def keep(self, journal_id: str) -> None:
        """The change stays. Raises `NotPending` when it was rolled back meanwhile, `NotWritten`, `SetupFailed`."""
        with self._folder.locked(LOCK_S) as alone, opened() as kernel:
            if not alone:  # the rollback is at work
                raise NotPending
            self._keep(kernel, self._pending(journal_id))

    def undo(self, journal_id: str) -> None:
        """The old configuration comes back. Nothing happens when it has already."""
        with self._folder.locked(LOCK_S) as alone, opened() as kernel:
            if not alone:
                raise RollbackIncomplete("another process is at it and does not end")
            journal = self._folder.journal()
            if journal is not None and journal.id == journal_id and journal.phase is Phase.APPLYING:
                self._undo(kernel, journal)
            else:
                self._disarm(journal_id)  # it has fired

    @contextmanager
    def _alone(self) -> Iterator[Kernel]:
        """Nobody else changes anything, and no change waits for its end."""
        with _failing("beginning"), self._folder.locked(LOCK_S) as alone, opened() as kernel:
            journal = self._folder.journal()
            awaited = journal is not None and journal.phase is Phase.APPLYING and self._is_armed(journal.id)
            if not alone or awaited:
                raise SetupFailed("beginning", "another change is not finished")
            if journal is not None:  # its end failed, for a reason that may be gone now
                rollback.end(self._folder, journal)
            yield kernel

    def _is_armed(self, journal_id: str) -> bool:
        return self._switch is not None and self._switch.journal_id == journal_id and self._switch.is_armed

    def _begin(self, kernel: Kernel, request: model.Request, wait_s: float, persist: bool) -> Journal:
        running, waiting = self._folder.running(), self._folder.waiting()
        try:
            state = kernel.state()
        except StepFailed as e:
            raise SetupFailed(e.step, e.reason) from e
        wanted = model.check(request, running, state, waiting)
        still = {name: net for name, net in waiting.items() if name not in wanted and name not in request.removed}
        changes = plan(running, wanted, state)
        journal = _journal(changes, wanted, still, wait_s, persist)
        try:
            with _failing("writing the journal"):
                self._folder.write_journal(journal)
            JOURNALED.reach()
            if self._switch is not None:  # one of a change that somebody else ended
                self._disarm(self._switch.journal_id)
            self._switch = Switch(self._folder, journal.id)
            ARMED.reach()
            self._apply(kernel, changes, wanted, _apply_s(changes))
        except Exception as e:  # of any kind, for the caller: a journal that stays would refuse every later change
            self._undo(kernel, journal)
            if isinstance(e, StepFailed):
                raise SetupFailed(e.step, e.reason) from e
            raise
        VERIFIED.reach()
        return journal

    def _keep(self, kernel: Kernel, journal: Journal) -> None:
        journal = replace(journal, phase=Phase.COMMITTING)
        try:
            with _failing("writing down that it stays"):
                self._folder.write_journal(journal)
        except SetupFailed:
            self._undo(kernel, journal)
            raise
        INTENT.reach()
        try:
            self._folder.write_kept(journal)
            RUNNING_WRITTEN.reach()
            self._folder.clear_journal()
        except OSError as e:  # the journal says that it stays: whoever finds it writes it again
            raise NotWritten(e.strerror or str(e)) from e
        self._disarm(journal.id)

    def _apply(self, kernel: Kernel, changes: list[Change], wanted: model.Networks, seconds: float) -> None:
        """Never beside the switch: it waits longer than this goes on."""
        end = time.monotonic() + seconds
        for change in changes:
            if time.monotonic() > end:
                raise SetupFailed(str(change.step), f"all takes longer than {seconds:g} s")
            kernel.do(change.step)
            point = STEPS.get(change.step.op, STEP_REMOVED)
            point.reach()
        wrong = problems(wanted, kernel.state())
        if wrong:
            raise SetupFailed("reading back", "; ".join(wrong))

    def _pending(self, journal_id: str) -> Journal:
        journal = self._folder.journal()
        if journal is None or journal.id != journal_id:
            raise NotPending
        return journal

    def _undo(self, kernel: Kernel, journal: Journal) -> None:
        rollback.undo(kernel, journal)
        UNDONE.reach()
        with _failing("clearing the journal"):
            self._folder.clear_journal()
        self._disarm(journal.id)

    def _disarm(self, journal_id: str) -> None:
        """By the holder of the folder's lock; another change's stays armed."""
        if self._switch is not None and self._switch.journal_id == journal_id:
            self._switch.disarm()
            self._switch = None


def _apply_s(changes: list[Change]) -> float:
    return APPLY_S + STEP_S * len(changes)


@contextmanager
def _failing(step: str) -> Iterator[None]:
    """What the system refuses outside the kernel's networking: a full disk, no more processes."""
    try:
        yield
    except OSError as e:
        raise SetupFailed(step, e.strerror or str(e)) from e


def _journal(
    changes: list[Change], wanted: model.Networks, waiting: model.Networks, wait_s: float, persist: bool
) -> Journal:
    return Journal(
        id=str(uuid.uuid4()),
        boot_id=boot_id(),
        hold_s=_apply_s(changes) + SPARE_S + wait_s,
        phase=Phase.APPLYING,
        steps=tuple(change.step for change in changes),
        inverses=tuple(step for change in reversed(changes) for step in change.inverses),
        running=dict(wanted),
        persist=persist,
        waiting=dict(waiting),
    )
