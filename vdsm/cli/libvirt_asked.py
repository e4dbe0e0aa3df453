# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether libvirt's daemon answers: one question of its wire protocol that needs no right and no library.

A daemon that is stopped or hangs takes connections all the same, because the kernel does that for it; and a call of the
library that waits for it has no deadline. So it is asked in bytes: which ways of authentication there are, the question
with which each client begins.
"""

from __future__ import annotations

import socket
import struct

# length, program, version, procedure, type, serial, status (libvirt: virnetprotocol.x, remote_protocol.x)
_HEADER = struct.Struct(">7I")
_PROGRAM, _VERSION, _AUTH_LIST = 0x20008086, 1, 66
_CALL, _REPLY = 0, 1
_QUESTION = _HEADER.pack(_HEADER.size, _PROGRAM, _VERSION, _AUTH_LIST, _CALL, 1, 0)


class NoLibvirt(Exception):
    """Something else answers."""


def ask(path: str, timeout_s: float) -> None:
    """Raises `NoLibvirt`, `TimeoutError` when it takes the connection and no more, `OSError` when not even that."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeout_s)
        probe.connect(path)
        probe.sendall(_QUESTION)
        answer = b""
        while len(answer) < _HEADER.size:
            part = probe.recv(_HEADER.size - len(answer))
            if not part:
                raise TimeoutError
            answer += part
    if _HEADER.unpack(answer)[1:5] != (_PROGRAM, _VERSION, _AUTH_LIST, _REPLY):
        raise NoLibvirt
