# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command's exit codes mean. A contract with scripts: numbers are added, never changed."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    DONE = 0
    REFUSED = 1  # the agent answered with an error
    USAGE = 2
    UNREACHABLE = 3  # no agent, or no access to it
    NO_ANSWER = 4  # the agent did not answer in time; the call may still go on
    FINDINGS = 5  # doctor, hooks lint, hooks try: looked, and found what is wrong
    INTERRUPTED = 130
