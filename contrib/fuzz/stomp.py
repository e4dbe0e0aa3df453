# SPDX-License-Identifier: GPL-2.0-or-later
"""The parser of STOMP frames: whoever reaches the engine's port feeds it, and TCP cuts what they send anywhere.

The same bytes are fed at once, in the pieces that the input asks for, and one by one. All three must give the same
frames, or the same refusal; a refusal may drop the frames of its own piece. What the parser keeps is within its limits,
and a frame written again is read as the same frame.

An input is one byte (bit 0: small limits; the upper half: how many pieces), a byte for the size of each, and the wire.
"""

from __future__ import annotations

from collections.abc import Iterator

from contrib.fuzz.target import Target
from vdsm.common.stomp import COMMANDS, Frame, Limits, NotStomp, Parser, encode

SMALL = Limits(head_bytes=80, headers=4, body_bytes=48)
# escapes make a header longer, and a body brings its length with it
WIDE = Limits(head_bytes=1 << 20, headers=100)
VERBATIM = ("CONNECT", "CONNECTED")
ID = "6a3b1f0e-0000-4000-8000-000000000001"
REQUESTS, RESPONSES, EVENTS = "jms.topic.vdsm_requests", "jms.topic.vdsm_responses", "jms.queue.events"
CALL = b'{"jsonrpc":"2.0","method":"Host.ping2","params":{},"id":"1"}'


def run(data: bytes) -> None:
    limits = SMALL if data[:1] and data[0] & 1 else Limits()
    count = data[0] >> 4 if data else 0
    sizes, wire = data[1 : 1 + count], data[1 + count :]
    singly, refused = _fed([wire[at : at + 1] for at in range(len(wire))], limits)
    for pieces in ([wire], list(_pieces(wire, sizes))):
        frames, same = _fed(pieces, limits)
        assert same == refused, f"refused in one way of cutting only: {pieces}"
        assert frames == (singly[: len(frames)] if refused else singly), f"other frames when cut to {pieces}"
    for frame in singly:
        assert frame.command in COMMANDS, f"command {frame.command!r}"
        assert len(frame.headers) <= limits.headers
        assert len(frame.body) <= limits.body_bytes
        _comes_back(frame)


def _pieces(wire: bytes, sizes: bytes) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield wire[at : at + size]
        at += size
    yield wire[at:]


def _fed(pieces: list[bytes], limits: Limits) -> tuple[list[Frame], bool]:
    """The frames, and whether a piece was refused."""
    parser, frames = Parser(limits), []
    for piece in pieces:
        try:
            frames += parser.feed(piece)
        except NotStomp:
            return frames, True
        # what a head may end with counts for it
        kept = len(parser._buffer)
        assert kept <= max(limits.head_bytes + len(b"\n\r\n"), limits.body_bytes), f"{kept} bytes are kept"
    return frames, False


def _comes_back(frame: Frame) -> None:
    if frame.command in VERBATIM and any("\r" in text for item in frame.headers.items() for text in item):
        return  # frames without escapes have no form for it
    (back,) = Parser(WIDE).feed(encode(frame))
    assert (back.command, back.body) == (frame.command, frame.body)
    length = {"content-length": str(len(frame.body))} if frame.body else {}
    assert back.headers == {**frame.headers, **length}


def wires() -> Iterator[bytes]:
    """What the field's two clients send, and what is lenient in reading it."""
    connect = b"CONNECT\naccept-version:1.2\nhost:null\nheart-beat:0,15000\n\n\0"
    subscribe = b"".join(
        f"SUBSCRIBE\ndestination:{queue}\nack:auto\nid:{ID}\n\n\0".encode() for queue in (EVENTS, RESPONSES)
    )
    java = f"SEND\ndestination:{REQUESTS}\nreply-to:{RESPONSES}\ncontent-length:{len(CALL)}\n\n".encode()
    batch = b"[%s]" % CALL
    python = f"SEND\ncontent-type:application/json\nreply-to:{ID}\ndestination:{REQUESTS}\n".encode()
    python += f"content-length:{len(batch)}\n\n".encode()
    yield connect + subscribe
    yield subscribe + connect
    yield b"\n" + java + CALL + b"\0\n" + java + CALL + b"\0"
    yield b"CONNECT\naccept-version:1.2\nheart-beat:0,24000\n\n\0" + python + batch + b"\0"
    yield f"UNSUBSCRIBE\nid:{ID}\n\n\0DISCONNECT\nreceipt:1\n\n\0".encode()
    yield b"\r\n\nSEND\r\na:b:c\r\na:2\r\n\r\nbody\0"
    yield b"SEND\na:x\\cy\\n\\\\\\t\n\n\0CONNECT\na:x\\cy\n\n\0"
    yield b"MESSAGE\ncontent-length:3\n\n\0\0\0\0ERROR\n\nwhy\0"


def seeds() -> Iterator[bytes]:
    for wire in wires():
        for head in (b"\x00", b"\x01", b"\x30\x01\x07\x28", b"\x31\x03\x05\x0b"):
            yield head + wire


TARGET = Target(
    run,
    seeds,
    max_bytes=600,
    tokens=(
        *(command.encode() for command in sorted(COMMANDS)),
        b"\n\n\0",
        b"\r\n\r\n",
        b"content-length:",
        b"\ncontent-length:0\n\n",
        b"\\c",
        b"\\\\",
        b"x" * 20,
    ),
)
