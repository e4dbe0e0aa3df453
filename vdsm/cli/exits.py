# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command's exit codes mean. A contract with scripts: numbers are added, never changed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import TextIO


class Exit(IntEnum):
    DONE = 0
    REFUSED = 1  # the agent answered with an error, of status in one of its parts; a file may not be read
    USAGE = 2
    UNREACHABLE = 3  # no agent, or no access to it
    NO_ANSWER = 4  # the agent did not answer in time; the call may still go on
    FINDINGS = 5  # doctor, hooks lint, hooks try: looked, and found what is wrong
    INTERRUPTED = 130
    READER_GONE = 141  # as after SIGPIPE: who read the output has read enough


@contextlib.contextmanager
def ending_quietly() -> Iterator[None]:
    """A reader that has enough (`| head -1`) is no fault. Also of what is only written when the program ends.

    What can't be written for another reason (a full disk) ends the command with a sentence.
    """
    _open_what_is_closed()
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
        _write_no_more(stdout)
        sys.exit(Exit.READER_GONE)
    except OSError as e:
        _write_no_more(stdout)
        sys.stderr.write(f"{e.filename or 'Standard output'}: {e.strerror or e}.\n")
        sys.exit(Exit.REFUSED)
    if end is not None:
        raise end


def _open_what_is_closed() -> None:
    """`>&-`: Python has no stream there then, and the next file that is opened would take the output."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for as long as the command runs


def _write_no_more(stdout: TextIO) -> None:
    """What is still in the stream would fail once more when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
