# SPDX-License-Identifier: GPL-2.0-or-later
"""Load: ask one verb as fast as the agent answers, one request at a time on each connection, or a few.

A process of its own, with as little client code as possible, so that the agent is what is measured::

    python -m contrib.benchmarks.load http|ws|stomp ADDRESS CONNECTIONS SECONDS [PKI [VERB [AT_ONCE]]]

ADDRESS is ``host:port`` or the path of a unix socket; ``stomp`` is STOMP over TLS with the certificate below PKI (this
host's own). Prints one JSON object: requests, all (with the warm-up's), seconds, errors, bytes (of the largest
answer), p50_us, p99_us.
"""

from __future__ import annotations

import abc
import asyncio
import functools
import json
import sys
import time
from collections import deque
from collections.abc import Callable

from vdsm.client import tls

BODY = b'{"jsonrpc":"2.0","method":"Host.ping2","id":1}'
GOOD = b'"result":'
WARM_UP_S = 0.5
PKI = "/etc/pki/vdsm"


class Asker(asyncio.Protocol, abc.ABC):
    """One connection: sends the next request when the answer is there."""

    request: bytes
    at_once = 1

    def __init__(self) -> None:
        self.latencies_ns: list[int] = []
        self.answers = 0
        self.largest = 0
        self.errors = 0
        self.counting = False
        self.stopped = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = b""
        self._sent_ns: deque[int] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.begin()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.stopped:
            self.errors += 1
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self.answer_end(self._buffer)) is not None:
            answer, self._buffer = self._buffer[:end], self._buffer[end:]
            self.answered(answer)

    def begin(self) -> None:
        self.ask()

    def ask(self) -> None:
        if self.stopped:
            self._transport.close()
            return
        self._sent_ns.append(time.perf_counter_ns())
        self._transport.write(self.request)

    def answered(self, answer: bytes) -> None:
        self.answers += 1
        self.largest = max(self.largest, len(answer))
        sent_ns = self._sent_ns.popleft()
        if self.counting:
            self.latencies_ns.append(time.perf_counter_ns() - sent_ns)
        if GOOD not in answer:
            self.errors += 1
        self.ask()

    @abc.abstractmethod
    def answer_end(self, buffer: bytes) -> int | None:
        """Where the first whole answer in ``buffer`` ends."""


class HttpAsker(Asker):
    def __init__(self, verb: str = "Host.ping2") -> None:
        super().__init__()
        body = BODY.replace(b"Host.ping2", verb.encode())
        head = b"POST /jsonrpc HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.request = head % len(body) + body

    def answer_end(self, buffer: bytes) -> int | None:
        head = buffer.find(b"\r\n\r\n")
        if head < 0:
            return None
        start = buffer.find(b"Content-Length: ", 0, head) + 16
        end = head + 4 + int(buffer[start : buffer.index(b"\r\n", start)])
        return end if len(buffer) >= end else None


class WebSocketAsker(Asker):
    # a client's frame must be masked; the mask of zeros leaves the text as it is
    request = bytes([0x81, 0x80 | len(BODY), 0, 0, 0, 0]) + BODY
    _greeted = False

    def begin(self) -> None:
        self._transport.write(
            b"GET /jsonrpc HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )

    def answer_end(self, buffer: bytes) -> int | None:
        if not self._greeted:
            head = buffer.find(b"\r\n\r\n")
            return None if head < 0 else head + 4
        if len(buffer) < 4:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(buffer[2:4], "big"), 4
        return start + size if len(buffer) >= start + size else None

    def answered(self, answer: bytes) -> None:
        if not self._greeted:
            self._greeted = True
            self.ask()
        elif b'"id"' in answer:  # anything else is an event or a heart-beat
            super().answered(answer)


class StompAsker(Asker):
    def __init__(self, verb: str = "Host.ping2", at_once: int = 1) -> None:
        super().__init__()
        self.at_once = at_once
        body = BODY.replace(b"Host.ping2", verb.encode())
        head = b"SEND\ndestination:jms.topic.vdsm_requests\nreply-to:jms.topic.vdsm_responses\ncontent-length:%d\n\n"
        self.request = head % len(body) + body + b"\0"

    def begin(self) -> None:
        self._transport.write(b"CONNECT\naccept-version:1.2\nhost:null\nheart-beat:0,15000\n\n\0")
        self._transport.write(b"SUBSCRIBE\ndestination:jms.topic.vdsm_responses\nack:auto\nid:1\n\n\0")

    def answer_end(self, buffer: bytes) -> int | None:
        if buffer.startswith(b"\n"):
            return 1  # a heart-beat
        head = buffer.find(b"\n\n")
        if head < 0:
            return None
        mark = buffer.find(b"content-length:", 0, head)
        if mark < 0:
            end = buffer.find(b"\0", head)
            return None if end < 0 else end + 1
        line = buffer[mark : buffer.index(b"\n", mark)]
        end = head + 2 + int(line.partition(b":")[2]) + 1
        return end if len(buffer) >= end else None

    def answered(self, answer: bytes) -> None:
        if answer.startswith(b"CONNECTED"):
            for _ in range(self.at_once):
                self.ask()
        elif answer.startswith(b"MESSAGE"):
            super().answered(answer)
        elif answer != b"\n":
            self.errors += 1


Way = type[HttpAsker] | type[WebSocketAsker] | type[StompAsker]
KINDS: dict[str, Way] = {"http": HttpAsker, "ws": WebSocketAsker, "stomp": StompAsker}


async def measure(
    kind: Callable[[], Asker], address: str, connections: int, seconds: float, pki: str | None = None
) -> dict[str, float]:
    """``kind`` makes the connections' protocols; with ``pki`` they are TLS, by its certificate."""
    loop = asyncio.get_running_loop()
    askers: list[Asker] = []
    for _ in range(connections):
        if address.startswith("/"):
            _, asker = await loop.create_unix_connection(kind, address)
        else:
            host, _, port = address.rpartition(":")
            context = tls.context(tls.own(pki)) if pki else None
            _, asker = await loop.create_connection(kind, host, int(port), ssl=context)
        askers.append(asker)
    await asyncio.sleep(WARM_UP_S)
    for asker in askers:
        asker.counting = True
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - started
    for asker in askers:
        asker.counting, asker.stopped = False, True
    await asyncio.wait([asker.closed for asker in askers], timeout=5)
    latencies = sorted(ns for asker in askers for ns in asker.latencies_ns)
    if not latencies:
        raise SystemExit(f"no answer from {address}")
    return {
        "requests": len(latencies),
        "all": sum(asker.answers for asker in askers),
        "seconds": elapsed,
        "errors": sum(asker.errors for asker in askers),
        "bytes": max(asker.largest for asker in askers),
        "p50_us": latencies[len(latencies) // 2] / 1000,
        "p99_us": latencies[len(latencies) * 99 // 100] / 1000,
    }


def main() -> None:
    way, address, connections, seconds = sys.argv[1:5]
    pki, verb, at_once = (*sys.argv[5:], *(PKI, "Host.ping2", "1")[len(sys.argv) - 5 :])
    kind: Callable[[], Asker] = KINDS[way]
    if way == "stomp":
        kind = functools.partial(StompAsker, verb, int(at_once))
    if way == "http":
        kind = functools.partial(HttpAsker, verb)
    certificate = pki if way == "stomp" else None
    print(json.dumps(asyncio.run(measure(kind, address, int(connections), float(seconds), certificate))))


if __name__ == "__main__":
    main()
