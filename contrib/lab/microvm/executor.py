# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs commands inside a micro-VM for callers outside, each to its end or to its deadline.

One command a connection: a JSON line ``{"argv", "user", "timeout_s", "stdin_bytes"}`` and the input; the answer is a
JSON line ``{"code", "out_bytes", "err_bytes", "timed_out"}`` or ``{"error"}``, and the outputs. At the deadline the
command's process group is killed, and so it is when the caller goes away.

A request ``{"argv", "terminal": {"name", "rows", "columns"}}`` runs a command on a terminal of its own; the answer is
a JSON line ``{}`` or ``{"error"}``. After it, not before, the connection carries the terminal's bytes both ways, until
the command ends or the caller goes away.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from typing import IO, Any

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root", "TERM": "dumb"}
CHUNK = 64 << 10
# what a person types at the end
END_OF_INPUT = b"\x04"
AS_VDSM = ("setpriv", "--reuid", "36", "--regid", "36", "--init-groups", "--")


def serve(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(64)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        reader = connection.makefile("rb")
        line = reader.readline()
        if not line:
            return
        try:
            request = json.loads(line)
            if "terminal" in request:
                _attach(request["argv"], request["terminal"], connection)
                return
            with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                stdin.write(reader.read(request["stdin_bytes"]))
                stdin.seek(0)
                answer = _run(request, stdin, out, err, connection)
                sizes = {"out_bytes": out.seek(0, 2), "err_bytes": err.seek(0, 2)}
                connection.sendall(json.dumps({**answer, **sizes}).encode() + b"\n")
                for output in (out, err):
                    output.seek(0)
                    connection.sendfile(output)
        except (ValueError, KeyError, OSError) as error:
            connection.sendall(json.dumps({"error": str(error)}).encode() + b"\n")


def _run(
    request: dict[str, Any], stdin: IO[bytes], out: IO[bytes], err: IO[bytes], caller: socket.socket
) -> dict[str, Any]:
    argv = [*(AS_VDSM if request["user"] == "vdsm" else ()), *request["argv"]]
    child = subprocess.Popen(
        argv, stdin=stdin, stdout=out, stderr=err, env=ENVIRONMENT, cwd="/", start_new_session=True
    )
    ended = os.pidfd_open(child.pid)
    try:
        ready, _, _ = select.select([ended, caller.fileno()], [], [], request["timeout_s"])
    finally:
        os.close(ended)
    finished = child.poll() is not None
    if not finished:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    return {"code": child.wait(), "timed_out": not finished and not ready}


def _attach(argv: list[str], terminal: dict[str, Any], caller: socket.socket) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", int(terminal["rows"]), int(terminal["columns"]), 0, 0))
    child = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**ENVIRONMENT, "TERM": str(terminal["name"])},
        cwd="/root",
    )
    os.close(theirs)
    try:
        caller.sendall(b"{}\n")
        _pump(ours, caller)
    finally:
        # the end of the terminal hangs up whoever still runs on it
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.wait()


def _pump(terminal: int, caller: socket.socket) -> None:
    sources: list[Any] = [terminal, caller]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if caller in ready:
            data = caller.recv(CHUNK)
            if data:
                os.write(terminal, data)
            else:
                sources.remove(caller)
                os.write(terminal, END_OF_INPUT)
        if terminal in ready:
            try:
                data = os.read(terminal, CHUNK)
            except OSError:  # nobody has it open any more
                return
            caller.sendall(data)


if __name__ == "__main__":
    serve(sys.argv[1])
