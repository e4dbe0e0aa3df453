# SPDX-License-Identifier: GPL-2.0-or-later
"""Roles of certificates: what the policy file says, and what it does to connections."""

import asyncio
import contextlib
import logging
import os
import subprocess

import pytest
from ports import opened

from tests.peers import JavaPeer
from vdsm.api.roles import Role
from vdsm.certificates import places
from vdsm.rpc import policy as policy_module
from vdsm.rpc import port as port_module
from vdsm.rpc import tls
from vdsm.rpc.policy import BadPolicy, PolicyFile, parse
from vdsm.rpc.port import Address, EnginePort

VOLUME = "6a3b1f0e-0000-4000-8000-000000000001"
DIGITS = "ab" * 32
TEXT = f"""
default = "reader"
[[certificate]]
name = "engine.example.org"
role = "admin"
[[certificate]]
name = "*.hosts.example.org"
role = "peer"
[[certificate]]
sha256 = "{":".join(["AB"] * 32)}"
role = "refused"
[[certificate]]
name = "*"
role = "operator"
"""


def roles(text, *shown):
    policy = parse(text.encode(), "access.toml")
    return [policy.role_of(name, fingerprint) for name, fingerprint in shown]


def test_the_first_rule_that_matches_counts():
    found = roles(TEXT, ("Engine.example.org", ""), ("a.hosts.example.org", ""), ("x", DIGITS), ("x", ""), ("", ""))
    assert found == [Role.ADMIN, Role.PEER, None, Role.OPERATOR, Role.OPERATOR]


def test_without_a_rule_the_default_counts_and_without_a_file_everybody_is_admin(tmp_path):
    assert roles('default = "reader"', ("x", "")) == [Role.READER]
    assert PolicyFile(str(tmp_path)).current().role_of("x", "") is Role.ADMIN


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("default = ", "Invalid value"),
        ("", "default"),
        ("default = " + "[" * 20_000, "deep|Expected"),
        ("default = 'admin'\nb", "Expected '='"),
        ('default = "root"', "'root'"),
        ('default = "admin"\n[[certificate]]\nname = "x"', "role"),
        ('default = "admin"\n[[certificate]]\nname = "x"\nrole = "king"', "king"),
        ('default = "admin"\n[[certificate]]\nrole = "admin"', "certificate 1: expected either name or sha256"),
        (
            f'default = "admin"\n[[certificate]]\nname = "x"\nsha256 = "{DIGITS}"\nrole = "admin"',
            "expected either name or sha256",
        ),
        ('default = "admin"\n[[certificate]]\nsha256 = "12"\nrole = "admin"', "64 hexadecimal digits"),
        ('default = "admin"\n[[certificates]]\nname = "x"\nrole = "admin"', "certificates"),
        ('default = "reader"\nrole = "x"', "role"),
        ("\xff", "access.toml"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_place(text, told):
    with pytest.raises(BadPolicy, match=told):
        parse(text.encode("latin-1"), "access.toml")


def test_a_policy_that_others_may_write_is_refused(tmp_path):
    write(tmp_path, TEXT).chmod(0o664)
    with pytest.raises(BadPolicy, match="writable by nobody else"):
        PolicyFile(str(tmp_path)).current()


def write(folder, text):
    """As an editor does it: a new file takes the name."""
    new = folder / "new"
    new.write_text(text)
    new.chmod(0o644)
    return new.rename(folder / "access.toml")


@pytest.fixture
async def guarded(server, pki, tmp_path, monkeypatch):
    monkeypatch.setattr(policy_module, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(port_module, "LOOK_AT_POLICY_S", 0.05)
    write(tmp_path, 'default = "admin"\n[[certificate]]\nname = "engine"\nrole = "reader"')
    certificates = tls.Certificates(places.host(str(pki.folder)))
    policy = PolicyFile(str(tmp_path))
    port = EnginePort(server.dispatcher, server.events, Address("::", 0), certificates=certificates, policy=policy)
    yield await opened(port)
    await port.stop()


@contextlib.asynccontextmanager
async def engine(port, pki):
    peer = JavaPeer(port.port, pki.engine())
    await peer.connect("0,15000")
    try:
        yield peer
    finally:
        await peer.close()


async def test_a_reader_changes_nothing_and_its_attempt_is_in_the_audit_log(guarded, pki, server, caplog):
    caplog.set_level(logging.INFO, "vdsm.audit")
    async with engine(guarded, pki) as peer:
        reply = await peer.call("Volume.delete", {"volumeID": VOLUME})
        assert reply["error"]["code"] == -32001
        assert "engine has role reader; Volume.delete needs role admin" in reply["error"]["message"]
        assert (await peer.call("Host.ping2"))["result"] is True
    assert server.done == []
    assert [record.message for record in caplog.records if record.name == "vdsm.audit"] == [
        f"Volume.delete by engine over stomp on volumeID={VOLUME}: failed with code -32001: "
        "engine has role reader; Volume.delete needs role admin"
    ]


@pytest.mark.parametrize("lost", ["empty", "gone"])
def test_a_policy_that_is_lost_while_the_agent_runs_stays_in_force(tmp_path, monkeypatch, caplog, lost):
    monkeypatch.setattr(policy_module, "LOOK_AGAIN_S", 0.0)
    file = write(tmp_path, TEXT)
    policy = PolicyFile(str(tmp_path))
    assert policy.current().role_of("x", "") is Role.OPERATOR
    file.write_text("") if lost == "empty" else file.unlink()
    for _ in range(3):
        assert policy.current().role_of("x", "") is Role.OPERATOR
    assert caplog.text.count("stays in force") == 1


def test_a_policy_too_long_to_be_read_whole_is_refused(tmp_path):
    write(tmp_path, 'default = "reader"\n' + "#" * policy_module.MAX_BYTES)
    with pytest.raises(BadPolicy, match="more than"):
        PolicyFile(str(tmp_path)).current()


async def test_a_role_that_is_given_or_taken_closes_the_connections_that_had_another(guarded, pki, server, tmp_path):
    async with engine(guarded, pki) as peer:
        await peer.call("Host.ping2")
        write(tmp_path, 'default = "admin"')
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(peer.frame(), 5)
    async with engine(guarded, pki) as peer:
        assert (await peer.call("Volume.delete", {"volumeID": VOLUME}))["result"] is True


async def test_a_refused_certificate_gets_nowhere_and_the_log_says_why(guarded, pki, tmp_path, caplog):
    fingerprint = subprocess.run(
        ["openssl", "x509", "-in", str(pki.folder / "other/engine.pem"), "-noout", "-fingerprint", "-sha256"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    write(tmp_path, f'default = "admin"\n[[certificate]]\nsha256 = "{fingerprint.partition("=")[2]}"\nrole = "refused"')
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        async with engine(guarded, pki) as peer:
            await peer.call("Host.ping2")
    assert "The certificate of 'engine' is refused by the access policy" in caplog.text


async def test_a_policy_that_breaks_later_leaves_the_old_one_in_force(guarded, pki, tmp_path, caplog):
    async with engine(guarded, pki) as peer:
        write(tmp_path, "default = ")
        await asyncio.sleep(0.2)
        assert (await peer.call("Host.ping2"))["result"] is True
    async with engine(guarded, pki) as peer:
        assert (await peer.call("Volume.delete", {"volumeID": VOLUME}))["error"]["code"] == -32001
    assert caplog.text.count("stays in force") == 1


async def test_a_port_with_a_wrong_policy_opens_when_it_is_mended(server, pki, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(policy_module, "LOOK_AGAIN_S", 0.0)
    monkeypatch.setattr(port_module, "LOOK_FOR_CERTIFICATES_S", 0.02)
    write(tmp_path, "default = 5")
    certificates = tls.Certificates(places.host(str(pki.folder)))
    policy = PolicyFile(str(tmp_path))
    port = EnginePort(server.dispatcher, server.events, Address("::", 0), certificates=certificates, policy=policy)
    await port.start()
    try:
        await asyncio.sleep(0.1)  # several looks
        assert port.port == 0
        assert caplog.text.count("stays closed") == 1
        write(tmp_path, TEXT)
        await asyncio.wait_for(_until_open(port), 5)
    finally:
        await port.stop()


async def _until_open(port):
    while not port.port:
        await asyncio.sleep(0.01)


def test_a_file_that_is_no_file_is_told(tmp_path):
    os.mkdir(tmp_path / "access.toml")
    with pytest.raises(BadPolicy, match=r"access\.toml: Is a directory"):
        PolicyFile(str(tmp_path)).current()


async def test_who_was_silent_until_its_certificate_was_refused_gets_nowhere(guarded, pki, tmp_path, caplog):
    identified, identify = asyncio.Event(), guarded._identify

    def identify_and_tell(*arguments):
        identified.set()
        return identify(*arguments)

    guarded._identify = identify_and_tell
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port, ssl=pki.engine())
    await asyncio.wait_for(identified.wait(), 5)
    write(tmp_path, 'default = "admin"\n[[certificate]]\nname = "engine"\nrole = "refused"')
    writer.write(b"CONNECT\naccept-version:1.2\n\n\0")
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert "refused by the access policy" in caplog.text


async def test_in_plain_mode_a_broken_policy_is_nobodys_business(server, tmp_path, monkeypatch):
    monkeypatch.setattr(port_module, "LOOK_AT_POLICY_S", 0.0)
    write(tmp_path, "default = 5")
    policy = PolicyFile(str(tmp_path))
    port = EnginePort(server.dispatcher, server.events, Address("127.0.0.1", 0), certificates=None, policy=policy)
    await opened(port)
    try:
        await asyncio.wait_for(port._opening, 5)
        reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
        writer.write(b"CONNECT\naccept-version:1.2\n\n\0")
        assert (await asyncio.wait_for(reader.readuntil(b"\0"), 5)).startswith(b"CONNECTED\n")
        writer.close()
    finally:
        await port.stop()
