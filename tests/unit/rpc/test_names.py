# SPDX-License-Identifier: GPL-2.0-or-later
import socket

import pytest

from vdsm.rpc import names


@pytest.fixture
def resolver(monkeypatch):
    def look_up(address):
        if address != "192.0.2.7":
            raise OSError("no such host")
        return "engine.example", ["alias.example"], [address]

    monkeypatch.setattr(socket, "gethostbyaddr", look_up)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("Engine.example", "192.0.2.7"),
        ("alias.example", "192.0.2.7"),
        ("anything", "127.0.0.1"),
        ("anything", "::1"),
    ],
)
async def test_a_name_belongs_to_its_address_and_any_to_the_host_itself(resolver, name, address):
    assert await names.belongs_to(name, address)


@pytest.mark.parametrize(
    ("name", "address"),
    [("other.example", "192.0.2.7"), ("engine.example", "192.0.2.8"), ("", "192.0.2.7"), ("engine.example", "?")],
)
async def test_a_name_does_not_belong_to_another_address(resolver, name, address):
    assert not await names.belongs_to(name, address)
