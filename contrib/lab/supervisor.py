# SPDX-License-Identifier: GPL-2.0-or-later
"""PID 1 of a host once it is built: starts, signals and reaps processes on request.

One request a connection, a JSON line each way:

    {"start": argv, "env": {}, "log": path, "user": "..."} ->  {"pid": n}
    {"signal": n, "pid": n}                                ->  {"sent": true|false}
    {"wait": pid}                                          ->  {"code": n} once it has ended; null if unknown

Orphans of anybody are reaped silently. Every end of a started process is a line in /var/log/lab.log.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contrib.lab.spec import CONTROL

LOG = "/var/log/lab.log"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/"}
AS_VDSM = ("setpriv", "--reuid", "36", "--regid", "36", "--init-groups", "--")
MAX_REQUEST = 1 << 20


class Supervisor:
    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._ended: dict[int, int] = {}
        self._waiting: dict[int, list[socket.socket]] = {}
        self._selector = selectors.DefaultSelector()

    def start(self, argv: list[str], *, env: dict[str, str] | None = None, log: str, user: str = "root") -> int:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            child = subprocess.Popen(
                [*(AS_VDSM if user == "vdsm" else ()), *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, **(env or {})},
                cwd="/",
                start_new_session=True,
            )
        self._children[child.pid] = child
        return child.pid

    def serve(self, ready: Callable[[], None]) -> None:
        """Serve requests for ever; ``ready`` is called once they are accepted."""
        wake_up, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(CONTROL)
        os.chmod(CONTROL, 0o600)
        listener.listen(16)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(wake_up, selectors.EVENT_READ, self._reap)
        self._reap(wake_up)
        ready()
        while True:
            for key, _ in self._selector.select():
                key.data(key.fileobj)

    def has_ended(self, pid: int) -> int | None:
        """Exit code of a started process that has ended; to be used before `serve`."""
        self._collect()
        return self._ended.get(pid)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(5)
        try:
            self._answer(connection, json.loads(_read_line(connection)))
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            _reply(connection, {"error": str(error)})

    def _answer(self, connection: socket.socket, request: dict[str, Any]) -> None:
        if "start" in request:
            pid = self.start(request["start"], env=request["env"], log=request["log"], user=request.get("user", "root"))
            _reply(connection, {"pid": pid})
        elif "signal" in request:
            _reply(connection, {"sent": self._signal(request["pid"], request["signal"])})
        else:
            self._wait(connection, request["wait"])

    def _signal(self, pid: int, number: int) -> bool:
        if pid not in self._children:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    def _wait(self, connection: socket.socket, pid: int) -> None:
        if pid in self._children:
            self._waiting.setdefault(pid, []).append(connection)
        else:
            _reply(connection, {"code": self._ended.get(pid)})

    def _reap(self, wake_up: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake_up, 4096)
        self._collect()

    def _collect(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is None:
                continue
            code = os.waitstatus_to_exitcode(status)
            child.returncode = code
            self._ended[pid] = code
            with open(LOG, "a") as log:
                log.write(f"ended with {code}: {child.args!r}\n")
            for connection in self._waiting.pop(pid, []):
                _reply(connection, {"code": code})


def _read_line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < MAX_REQUEST:
        part = connection.recv(65536)
        if not part:
            break
        data += part
    return data


def _reply(connection: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(answer).encode() + b"\n")
    connection.close()
