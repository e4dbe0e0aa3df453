# SPDX-License-Identifier: GPL-2.0-or-later
"""Put the old configuration back; also as a process of its own: the dead man's switch.

    python -m network.rollback FOLDER JOURNAL_ID

It is started before the first step, in a session of its own, without a death signal, holding nothing but the
journal. It rolls back when the journal's time is over, or at once when its helper dies (end of file on
standard input: nobody is left who could keep the change). A byte on standard input disarms it. Whoever comes
second finds another journal or none, and does nothing: the folder's lock lets in one at a time.
"""

from __future__ import annotations

import os
import select
import sys

from network.errors import RollbackIncomplete
from network.journal import Folder, Journal, Phase, boot_id
from network.kernel import Kernel, StepFailed, opened
from network.plan import Step

LOCK_WAIT_S = 5.0
ROUNDS = 3


def undo(kernel: Kernel, journal: Journal) -> None:
    """Run all inverses. One that fails does not stop the others. Raises `RollbackIncomplete`."""
    failures: list[str] = []
    for _ in range(ROUNDS):
        failures = []
        for step in journal.inverses:
            try:
                kernel.do(step)
            except StepFailed as e:
                if not _of_a_device_that_is_gone(kernel, step):
                    failures.append(str(e))
        if not failures:
            return
    raise RollbackIncomplete("; ".join(failures))


def _of_a_device_that_is_gone(kernel: Kernel, step: Step) -> bool:
    """There is nothing to put back on a bridge that was never made, nor on a NIC that was pulled out meanwhile."""
    device = step.args.get("name") or step.args.get("device")
    try:
        return step.op != "bridge_add" and device is not None and kernel.link(str(device)) is None
    except StepFailed:  # it may be there
        return False


def finish(folder: Folder, wanted_id: str = "") -> str:
    """End whatever change the journal tells of, one way or the other; "" when there is none."""
    with folder.locked(LOCK_WAIT_S):  # a holder that hangs past the deadline does not stop the rollback
        journal = folder.journal()
        if journal is None or (wanted_id and journal.id != wanted_id):
            return ""
        return end(folder, journal)


def end(folder: Folder, journal: Journal) -> str:
    """The same, by the holder of the folder's lock. Raises `RollbackIncomplete`; the journal is kept then."""
    if journal.phase is Phase.COMMITTING:
        folder.write_kept(journal)
        folder.clear_journal()
        return "kept"
    if journal.boot_id == boot_id():
        with opened() as kernel:
            undo(kernel, journal)
    folder.clear_journal()
    return "rolled back"


def main() -> None:
    path, wanted_id = sys.argv[1:]
    folder = Folder(path)
    journal = folder.journal()
    if journal is None or journal.id != wanted_id:
        sys.exit("there is no such journal")
    os.write(1, b"armed\n")
    readable, _, _ = select.select([0], [], [], journal.hold_s)
    if readable and os.read(0, 1):
        return
    finish(folder, wanted_id)


if __name__ == "__main__":
    main()
