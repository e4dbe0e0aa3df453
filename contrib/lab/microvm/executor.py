# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs commands inside a micro-VM for callers outside, each to its end or to its deadline.

One command a connection: a JSON line ``{"argv", "user", "timeout_s", "stdin_bytes"}`` and the input; the answer is a
JSON line ``{"code", "out_bytes", "err_bytes", "timed_out"}`` or ``{"error"}``, and the outputs. At the deadline the
command's process group is killed, and so it is when the caller goes away.

A request ``{"argv", "joined": how}`` joins a command with the connection; the answer is a JSON line ``{"number"}``, or
``{"error"}``. After it, not before, the connection carries bytes both ways until the command ends; a request
``{"ended": number}`` then asks for its ``{"code"}``. ``how`` is one of

    {"name", "rows", "columns"}   a terminal of its own; the command is hung up on when the caller goes away
    "input"                       pipes; the end of what the caller sends is the end of the command's input
    "output"                      pipes, nothing to read; the command is killed when the caller goes away
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
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
from dataclasses import dataclass
from typing import IO, Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", "TERM": "dumb", "PS1": r"\u@\h:\w# "}
CHUNK = 64 << 10
# from the end of a command's output to its own
LEFT_S = 5.0
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
            if "joined" in request:
                _join(request["argv"], request["joined"], connection)
                return
            if "ended" in request:
                connection.sendall(json.dumps({"code": _codes.pop(request["ended"])}).encode() + b"\n")
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


_numbers = itertools.count(1)
# of joined commands, until somebody asks
_codes: dict[int, int] = {}


@dataclass
class Joined:
    child: subprocess.Popen[bytes]
    output: int
    # None: nothing is to be read
    input: int | None
    end_hangs_up: bool


def _join(argv: list[str], how: Any, caller: socket.socket) -> None:
    number = next(_numbers)
    joined = _on_a_terminal(argv, how) if isinstance(how, dict) else _on_pipes(argv, how)
    try:
        caller.sendall(json.dumps({"number": number}).encode() + b"\n")
        has_ended = _pump(joined, caller)
    except OSError:  # the caller has gone
        has_ended = False
    finally:
        # the end of a terminal hangs up whoever still runs on it
        for descriptor in {joined.output, joined.input}:
            if descriptor is not None:
                os.close(descriptor)
    with contextlib.suppress(subprocess.TimeoutExpired):
        joined.child.wait(timeout=LEFT_S if has_ended else 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(joined.child.pid, signal.SIGKILL)
    _codes[number] = joined.child.wait()


def _on_a_terminal(argv: list[str], how: dict[str, Any]) -> Joined:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", int(how["rows"]), int(how["columns"]), 0, 0))
    environment = {**ENVIRONMENT, "TERM": str(how["name"])}
    try:
        # setsid makes the session, and the terminal its own
        child = subprocess.Popen(
            ["setsid", "--ctty", *argv], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd="/root"
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return Joined(child, ours, ours, end_hangs_up=True)


def _on_pipes(argv: list[str], how: str) -> Joined:
    is_read = how == "input"
    output, theirs = os.pipe()
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if is_read else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=ENVIRONMENT,
            cwd="/root",
            start_new_session=True,
        )
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(theirs)
    source = os.dup(child.stdin.fileno()) if child.stdin is not None else None
    if child.stdin is not None:
        child.stdin.close()
    return Joined(child, output, source, end_hangs_up=not is_read)


def _pump(joined: Joined, caller: socket.socket) -> bool:
    """Whether the command's output ended; False when the caller hung up."""
    sources: list[Any] = [joined.output, caller]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if caller in ready:
            data = caller.recv(CHUNK)
            if data and joined.input is not None:
                _write(joined.input, data)
            elif not data and joined.end_hangs_up:
                return False
            elif not data and joined.input is not None:
                sources.remove(caller)
                os.close(joined.input)
                joined.input = None
        if joined.output in ready:
            try:
                data = os.read(joined.output, CHUNK)
            except OSError:  # nobody has the terminal open any more
                return True
            if not data:
                return True
            caller.sendall(data)


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # it has stopped reading
        while data:
            data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    serve(sys.argv[1])
