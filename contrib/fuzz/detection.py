# SPDX-License-Identifier: GPL-2.0-or-later
"""Which protocol a connection speaks: decided on bytes that come one after the other, once and for all.

An answer never changes with more bytes, for the port asks again after each piece and goes by the first. And it agrees
with the parsers behind it: what is taken for STOMP has a first line that the STOMP parser takes, and nothing else has.
"""

from __future__ import annotations

from collections.abc import Iterator

from contrib.fuzz.target import Target
from vdsm.common.stomp import COMMANDS, NotStomp, Parser
from vdsm.rpc.detection import HTTP, STOMP, Spoken, detect

# behind a line of this size there is no doubt left
LONGEST = max(map(len, (*HTTP, *STOMP)))


def run(data: bytes) -> None:
    answers = [detect(data[:size]) for size in range(len(data) + 1)]
    settled = next((at for at, answer in enumerate(answers) if answer is not None), None)
    begun = data.lstrip(b"\r\n")
    if settled is None:
        assert len(begun) <= LONGEST + len(b"\r"), "undecided, whatever comes now"
        return
    answer = answers[settled]
    assert all(later is answer for later in answers[settled:]), f"{answers}"
    assert (answer is Spoken.HTTP) == begun.startswith(HTTP)
    line, ended, _ = data[:settled].lstrip(b"\r\n").partition(b"\n")
    assert _taken_by_parser(line + ended) == (answer is Spoken.STOMP)


def _taken_by_parser(begin: bytes) -> bool:
    try:
        Parser().feed(begin)
    except NotStomp:
        return False
    return True


def seeds() -> Iterator[bytes]:
    for command in sorted(COMMANDS):
        yield f"{command}\na:b\n\n\0".encode()
        yield f"\r\n\n{command}\r\n\r\n\0".encode()
    yield b"POST /jsonrpc HTTP/1.1\r\nHost: agent\r\n\r\n"
    yield b"GET /jsonrpc HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
    yield b"PUT / HTTP/1.1\r\nStorage-Pool-Id: 1\r\n\r\n"
    yield b"DELETE / HTTP/1.1\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    yield b"\n" * 64 + b"CONNECT\n"


TARGET = Target(run, seeds, max_bytes=96, tokens=(*HTTP, *STOMP))
