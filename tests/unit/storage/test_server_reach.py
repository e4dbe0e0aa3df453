# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a server can be reached: by real sockets of this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from storage.servers import reach
from storage.servers.reach import Reach


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


async def test_a_server_that_listens_is_reached(listening: int, closed: int) -> None:
    assert await Reach().lacking("127.0.0.1", [listening]) == ""
    assert await Reach().lacking("127.0.0.1", [closed, listening]) == ""


async def test_one_whose_service_is_down_is_told_at_once(closed: int) -> None:
    told = await Reach().lacking("127.0.0.1", [closed])
    assert told == f"server 127.0.0.1 can't be reached at TCP port {closed}: Connection refused"


async def test_an_address_in_brackets_is_an_address(closed: int) -> None:
    assert "server [::1] can't be reached" in await Reach().lacking("[::1]", [closed])


async def test_silence_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(reach, "_connect", silent)
    monkeypatch.setattr(reach, "REACH_S", 0.05)
    assert "at TCP port 2049 or 111: no answer within 0.05 s" in await Reach().lacking("192.0.2.1", [2049, 111])


async def test_a_name_that_nobody_knows_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert await Reach().lacking("nowhere", [2049]) == "its name nowhere is not known here: Name or service not known"
