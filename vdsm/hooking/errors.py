# SPDX-License-Identifier: GPL-2.0-or-later
"""What a failing hook tells: which script, how it ended, and what it said."""

from __future__ import annotations

from vdsm.common.errors import AgentError

SHOWN_CHARACTERS = 200


class HookFailed(AgentError):
    """``code`` is the script's exit code, negative when a signal ended it, 126 when it was refused."""

    point: str
    script: str
    code: int
    stderr: str
    reason: str = ""
    msg = "Hook error: {self.point}/{self.script} {self.ending}{self.said}"
    remedy = "See 'vdsm hooks trace' for the whole run, 'vdsm hooks lint' for what is wrong with the file"

    @property
    def ending(self) -> str:
        return self.reason or f"ended with exit code {self.code}"

    @property
    def said(self) -> str:
        text = cause(self.stderr)
        shown = text[:SHOWN_CHARACTERS]
        return f": {shown}{'…' if len(text) > len(shown) else ''}" if text else ""


_TRACEBACK = "Traceback (most recent call last):"


def cause(stderr: str) -> str:
    """What a person must read of it: all, or without the way through the code to what a Python script ended by."""
    text = stderr.strip()
    said, found, _ = text.partition(_TRACEBACK)
    if not found:
        return text
    _, _, last = text.rpartition(_TRACEBACK)
    lines = last.splitlines()
    while lines and (not lines[0].strip() or lines[0].startswith(" ")):
        del lines[0]
    return " ".join(filter(None, [said.strip(), "\n".join(lines).strip()]))


class HooksNotRun(AgentError):
    """The scripts of a point could not be run at all."""

    point: str
    reason: str
    msg = "The hooks of {self.point} could not be run: {self.reason}"


class ForbiddenProperty(AgentError):
    """A custom property that would change how every script is run."""

    names: str
    msg = (
        "Custom property {self.names} is refused: hook scripts get properties as environment variables, "
        "and this name would change how they run"
    )
