# SPDX-License-Identifier: GPL-2.0-or-later
"""This side of a command inside a micro-VM: what is typed goes in, what it writes comes out, until the command ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from typing import Any

CHUNK = 64 << 10


def attach(exec_socket: str, argv: Sequence[str], *, typed: bool) -> int:
    """Run the command joined to this process's output and, if ``typed``, its input; the exit code. Raises OSError."""
    source = sys.stdin.fileno() if typed else None
    if source is None:
        joined: object = "output"
    elif os.isatty(source):
        size = shutil.get_terminal_size()
        joined = {"name": os.environ.get("TERM", "dumb"), "rows": size.lines, "columns": size.columns}
    else:
        joined = "input"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(exec_socket)
        # what is sent before the answer would be taken for a part of the request
        number = _ask(connection, {"argv": list(argv), "joined": joined})["number"]
        with _raw(source):
            _pump(connection, source, sys.stdout.fileno())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(exec_socket)
        return int(_ask(connection, {"ended": number})["code"])


def _ask(connection: socket.socket, request: dict[str, Any]) -> dict[str, Any]:
    connection.sendall(json.dumps(request).encode() + b"\n")
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("the host went away")
        line += byte
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise OSError(answer["error"])
    return answer


def _pump(connection: socket.socket, source: int | None, target: int) -> None:
    waiting: list[socket.socket | int] = [connection] if source is None else [connection, source]
    while True:
        ready, _, _ = select.select(waiting, [], [])
        if connection in ready:
            data = connection.recv(CHUNK)
            if not data:
                return
            while data:
                data = data[os.write(target, data) :]
        if source in ready:
            assert source is not None
            typed = os.read(source, CHUNK)
            # the command may have ended meanwhile: then its last words are still to come
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if typed:
                    connection.sendall(typed)
                    continue
                connection.shutdown(socket.SHUT_WR)
            waiting.remove(source)


@contextlib.contextmanager
def _raw(descriptor: int | None) -> Iterator[None]:
    """Keys go through as they are typed, Ctrl-C too; nothing where the input is no terminal."""
    if descriptor is None or not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    # what was typed already stays: the default would throw it away
    tty.setraw(descriptor, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
