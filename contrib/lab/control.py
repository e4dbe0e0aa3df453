# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests to a host's PID 1, from outside the host (see `supervisor` for the protocol)."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any


class HostFailed(Exception):
    """A host could not be made, or does not do what it was told."""


class Control:
    def __init__(self, path: str) -> None:
        """``path``: the supervisor's socket, as this process sees it."""
        self._path = path

    def start(self, argv: Sequence[str], *, log: str, user: str, env: Mapping[str, str] | None = None) -> int:
        """Start a process as the host's own; returns its number inside the host."""
        answer = self._ask({"start": list(argv), "env": dict(env or {}), "log": log, "user": user}, timeout_s=5)
        return int(answer["pid"])

    def signal(self, pid: int, number: int) -> bool:
        return bool(self._ask({"signal": number, "pid": pid}, timeout_s=5)["sent"])

    def wait(self, pid: int, *, timeout_s: float) -> int | None:
        """Exit code of a started process (negative: signal); None when it was never started. Raises TimeoutError."""
        code = self._ask({"wait": pid}, timeout_s=timeout_s)["code"]
        return None if code is None else int(code)

    def _ask(self, request: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(self._path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            data = b""
            while part := connection.recv(65536):
                data += part
        if not data:
            raise HostFailed("the host died")
        answer: dict[str, Any] = json.loads(data)
        if "error" in answer:
            raise HostFailed(answer["error"])
        return answer
