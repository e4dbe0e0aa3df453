# SPDX-License-Identifier: GPL-2.0-or-later
"""This side of a terminal inside a micro-VM: what is typed goes in, what it shows comes out, until the command ends."""

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

CHUNK = 64 << 10


def attach(exec_socket: str, argv: Sequence[str]) -> None:
    """Run the command on a terminal of its own, joined to this process's input and output. Raises OSError."""
    size = shutil.get_terminal_size()
    terminal = {"name": os.environ.get("TERM", "dumb"), "rows": size.lines, "columns": size.columns}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(exec_socket)
        connection.sendall(json.dumps({"argv": list(argv), "terminal": terminal}).encode() + b"\n")
        _await_answer(connection)
        with _raw(sys.stdin.fileno()):
            _pump(connection, sys.stdin.fileno(), sys.stdout.fileno())


def _await_answer(connection: socket.socket) -> None:
    """What is typed before it would be taken for a part of the request."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("the host went away before its terminal was there")
        line += byte
    if error := json.loads(line).get("error"):
        raise OSError(error)


def _pump(connection: socket.socket, source: int, target: int) -> None:
    waiting: list[socket.socket | int] = [connection, source]
    while True:
        ready, _, _ = select.select(waiting, [], [])
        if connection in ready:
            data = connection.recv(CHUNK)
            if not data:
                return
            while data:
                data = data[os.write(target, data) :]
        if source in ready:
            typed = os.read(source, CHUNK)
            if typed:
                connection.sendall(typed)
            else:
                waiting.remove(source)
                connection.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Keys go through as they are typed, Ctrl-C too; nothing where the input is no terminal."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
