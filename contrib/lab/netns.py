# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections made inside another network namespace, for who stays outside of it."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

from contrib.lab.kernel_calls import setns

CONNECT_S = 10.0


def connect(pid: int, address: str, port: int) -> socket.socket:
    """A connected, non-blocking TCP socket that belongs to the network namespace of that process. Raises OSError."""

    def inside() -> socket.socket:
        with open(f"/proc/{pid}/ns/net") as namespace:
            setns(namespace.fileno())
        connection = socket.create_connection((address, port), timeout=CONNECT_S)
        connection.setblocking(False)
        return connection

    # a thread of its own: the namespace is the thread's, and ends with it
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(inside).result()
