# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs commands inside a micro-VM for callers outside, each to its end or to its deadline.

One command a connection: a JSON line ``{"argv", "user", "timeout_s", "stdin_bytes"}`` and the input; the answer is a
JSON line ``{"code", "out_bytes", "err_bytes", "timed_out"}`` or ``{"error"}``, and the outputs. At the deadline the
command's process group is killed, and so it is when the caller goes away.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root", "TERM": "dumb"}
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


if __name__ == "__main__":
    serve(sys.argv[1])
