# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command's exit codes mean. A contract with scripts: numbers are added, never changed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from enum import IntEnum


class Exit(IntEnum):
    DONE = 0
    REFUSED = 1  # the agent answered with an error
    USAGE = 2
    UNREACHABLE = 3  # no agent, or no access to it
    NO_ANSWER = 4  # the agent did not answer in time; the call may still go on
    FINDINGS = 5  # doctor, hooks lint, hooks try: looked, and found what is wrong
    INTERRUPTED = 130
    READER_GONE = 141  # as after SIGPIPE: who read the output has read enough


@contextlib.contextmanager
def ending_quietly() -> Iterator[None]:
    """A reader that has enough (`| head -1`) is no fault. Also of what is only written when the program ends."""
    stdout = sys.stdout
    end: SystemExit | None = None
    try:
        try:
            yield
        except SystemExit as e:
            end = e
        if sys.stdout is not stdout:  # the library of options has seen it, and took the stream away
            raise BrokenPipeError
        stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        sys.exit(Exit.READER_GONE)
    if end is not None:
        raise end
