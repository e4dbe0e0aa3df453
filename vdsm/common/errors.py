# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors that carry typed fields and say what happened in one sentence.

A subclass declares its fields as annotations and a template that is formatted with
the error itself::

    class VolumeExists(AgentError):
        volume_id: str
        domain_id: str
        msg = "Volume {self.volume_id} already exists in domain {self.domain_id}"

Every subclass becomes a dataclass, so fields are given by position or by name.
Numeric codes of the wire are not known here: ``vdsm.api`` maps classes to codes.

Errors cross process borders (root helper, SPM process) as plain dictionaries made by
`encode` and read by `decode`. An unknown class arrives as `RemoteError`, never as a
lost error.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, dataclass_transform

_CLASSES: dict[str, type[AgentError]] = {}


def _kind(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


@dataclass_transform(eq_default=False)
class AgentError(Exception):
    """The root of all errors that the agent raises on purpose."""

    msg: ClassVar[str] = "The agent failed"
    remedy: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(eq=False, repr=False)(cls)
        _CLASSES[_kind(cls)] = cls

    def __str__(self) -> str:
        return self.msg.format(self=self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class RemoteError(AgentError):
    """An error of another process whose class is not known here."""

    kind: str
    text: str
    msg = "{self.text}"


class InvalidParameter(AgentError):
    """Bad input: the message names the parameter, what came and what was expected."""

    name: str
    value: str
    reason: str
    msg = "Parameter {self.name!r} is invalid: {self.reason} (got {self.value})"


class DeadlineExceeded(AgentError):
    what: str
    seconds: float
    msg = "{self.what} did not end within {self.seconds:g} s"


class CommandHangs(DeadlineExceeded):
    """Killed, and not dead: it waits in the kernel. What it was doing may still happen."""

    msg = "{self.what} did not end within {self.seconds:g} s and can't be killed: it hangs in the kernel"
    remedy = "Look at the storage that it works on"


class CommandFailed(AgentError):
    """A command ended with a code other than 0 (negative: killed by that signal)."""

    command: str
    code: int
    stderr: str
    msg = "Command {self.command!r} failed with code {self.code}: {self.stderr}"


class CommandNotFound(AgentError):
    command: str
    msg = "Command {self.command!r} is not installed on this host"
    remedy = "Run 'vdsm doctor': it names the package that brings it"


class OutputTooLong(AgentError):
    command: str
    limit_bytes: int
    msg = "Command {self.command!r} wrote more than {self.limit_bytes} bytes and was killed"


def encode(error: BaseException) -> dict[str, Any]:
    """The error as JSON: ``{"error": kind, "fields": {...}, "text": sentence}``."""
    if isinstance(error, AgentError):
        fields = {f.name: getattr(error, f.name) for f in dataclasses.fields(error)}  # type: ignore[arg-type]
        return {"error": _kind(type(error)), "fields": fields, "text": str(error)}
    return {"error": type(error).__name__, "fields": {}, "text": f"{type(error).__name__}: {error}"}


def decode(data: dict[str, Any]) -> AgentError:
    """The error that `encode` described; `RemoteError` when its class is not loaded here."""
    cls = _CLASSES.get(str(data.get("error", "")))
    fields = data.get("fields")
    if cls is not None and isinstance(fields, dict):
        try:
            return cls(**fields)
        except TypeError:  # written by another version with other fields
            pass
    return RemoteError(str(data.get("error", "unknown")), str(data.get("text", "")))
