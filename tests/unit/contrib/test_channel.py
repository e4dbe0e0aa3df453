# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial line of micro-VMs: many connections over one line, none holds up another."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from contrib.lab.microvm.channel import WINDOW, Channel

FLOOD = 8 * WINDOW


class Line:
    """Two ends in threads of their own; connections to ``outer`` arrive at ``inner``."""

    def __init__(self, folder: Path) -> None:
        self._inner = socket.socket(socket.AF_UNIX)
        self._inner.bind(str(folder / "inner"))
        self._inner.listen(8)
        self._outer = socket.socket(socket.AF_UNIX)
        self._outer.bind(str(folder / "outer"))
        self._outer.listen(8)
        self._path = str(folder / "outer")
        self._ends = socket.socketpair()
        ends = (
            Channel(self._ends[0].fileno(), {self._outer: str(folder / "inner")}),
            Channel(self._ends[1].fileno(), {}),
        )
        self._threads = [threading.Thread(target=end.serve) for end in ends]
        for thread in self._threads:
            thread.start()

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(self._path)
        server, _ = self._inner.accept()
        server.settimeout(20)
        return client, server

    def close(self) -> None:
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=20)
        for one in (*self._ends, self._inner, self._outer):
            one.close()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    made.close()


def _flood(server: socket.socket, data: bytes) -> threading.Thread:
    def send() -> None:
        server.sendall(data)
        server.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def _read(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_much_data_goes_through_unchanged_and_ends(line: Line) -> None:
    client, server = line.connect()
    data = os.urandom(FLOOD)
    sending = _flood(server, data)
    assert _read(client) == data
    sending.join()


def test_a_connection_that_nobody_reads_holds_up_itself_only(line: Line) -> None:
    """The first one's peer sends more than any buffer takes; the second one works, then the first gets all of it."""
    unread, flooding = line.connect()
    sending = _flood(flooding, b"x" * FLOOD)
    for number in range(50):
        client, server = line.connect()
        client.sendall(b"question %d" % number)
        assert server.recv(100) == b"question %d" % number
        server.sendall(b"answer")
        assert client.recv(100) == b"answer"
        client.close()
        server.close()
    assert sending.is_alive()
    assert len(_read(unread)) == FLOOD
    sending.join()
