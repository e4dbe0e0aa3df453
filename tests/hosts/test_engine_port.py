# SPDX-License-Identifier: GPL-2.0-or-later
"""A real host's port 54321, as an engine, another library and a flood see it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from contrib.lab import fabric, netns
from contrib.lab.cluster import Cluster, address
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PYTHON
from tests.failure_logs import watched
from tests.peers import JavaPeer

PORT = 54321
HALF_OPEN, SILENT = 5000, 1000
FLOOD = r"""
import resource, socket, sys
host, port, half_open, silent = sys.argv[1], *map(int, sys.argv[2:])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
opened = []
for number in range(half_open + silent):
    connection = socket.create_connection((host, port), timeout=20)
    opened.append(connection)
    try:
        if number < half_open:
            connection.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    except OSError:
        pass
print(len(opened))
"""
# a client of the field's, not ours: stomp.py
STOMP_PY = """
import json, queue, ssl, sys
import stomp
answers = queue.Queue()
class Listener(stomp.ConnectionListener):
    def on_message(self, frame):
        if "id" in json.loads(frame.body): answers.put(frame)  # anything else is an event
host, ca, certificate, key = sys.argv[1:]
connection = stomp.StompConnection12([(host, 54321)], heartbeats=(0, 5000))
connection.set_ssl(for_hosts=[(host, 54321), ("127.0.0.1", 54321)], ca_certs=ca, cert_file=certificate, key_file=key)
connection.set_listener("", Listener())
connection.connect(wait=True)
connection.subscribe("jms.queue.events", id="events", ack="auto")
connection.subscribe("jms.topic.vdsm_responses", id="responses", ack="auto")
for number in range(50):
    body = json.dumps({"jsonrpc": "2.0", "method": "Host.ping2", "params": {}, "id": str(number)})
    connection.send("jms.topic.vdsm_requests", body, headers={"reply-to": "jms.topic.vdsm_responses"})
got = [json.loads(answers.get(timeout=20).body) for _ in range(50)]
print(sorted(int(one["id"]) for one in got) == list(range(50)), {one["result"] for one in got})
connection.disconnect()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(hosts=1) as cluster, watched(*cluster.hosts):
        yield cluster


@pytest.fixture
def served(cluster: Cluster) -> PrivateHost:
    (host,) = cluster.hosts
    if not host.agent_lives:
        host.start_agent()
    return host


def _context(cluster: Cluster) -> ssl.SSLContext:
    identity = cluster.engine_identity
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(identity.ca)
    context.load_cert_chain(identity.certificate, identity.key)
    return context


def _connected(cluster: Cluster) -> socket.socket:
    return netns.connect(cluster.fabric_pid, address("management", 1), PORT)


@contextlib.asynccontextmanager
async def _engine(cluster: Cluster, heart_beat: str = "0,15000") -> AsyncIterator[JavaPeer]:
    peer = JavaPeer(PORT, _context(cluster), _connected(cluster))
    await peer.connect(heart_beat)
    try:
        yield peer
    finally:
        await peer.close()


async def test_an_engine_finds_a_host_that_it_can_drive(cluster: Cluster, served: PrivateHost) -> None:
    async with _engine(cluster) as engine:
        capabilities = (await engine.call("Host.getCapabilities"))["result"]
        assert capabilities["uuid"] == served.spec.host_id
        stats = (await engine.call("Host.getStats"))["result"]
        assert "cpuUser" in stats
        assert (await engine.call("Host.getAllVmStats"))["result"] == []
        assert (await engine.call("Host.noSuchVerb"))["error"]["code"] == -32601


async def test_an_agent_s_restart_is_an_engine_s_reconnect(cluster: Cluster, served: PrivateHost) -> None:
    async with _engine(cluster) as engine:
        assert (await engine.call("Host.ping2"))["result"] is True
        served.kill_agent()
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await engine.call("Host.ping2")
    served.start_agent()
    async with _engine(cluster, "0,11250") as engine:
        reply = await engine.call("Host.ping2")
        assert reply["result"] is True


def test_stomp_py_subscribes_and_calls(cluster: Cluster, served: PrivateHost) -> None:
    files = {}
    for name in ("ca", "certificate", "key"):
        source = getattr(cluster.engine_identity, name)
        files[name] = f"/tmp/engine-{name}.pem"
        served.path(files[name]).write_bytes(source.read_bytes())
    told = served.run([PYTHON, "-c", STOMP_PY, address("management", 1), *files.values()])
    assert told.stdout.decode().split() == ["True", "{True}"], told.stderr.decode()


async def test_a_stranger_s_certificate_is_refused_before_anything_is_parsed(
    cluster: Cluster, served: PrivateHost
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cluster.engine_identity.ca)
    answer = b""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(sock=_connected(cluster), ssl=context, server_hostname="host1")
        writer.write(b"SEND\ndestination:jms.topic.vdsm_requests\n\n{}\0")
        answer = await reader.read()
    assert answer == b""
    log = served.path("/var/log/vdsm/agent.log")
    async with asyncio.timeout(5):
        while "refused: no client certificate" not in log.read_text():
            await asyncio.sleep(0.05)


@pytest.mark.cost(22)
async def test_floods_leave_an_engine_s_calls_quick(cluster: Cluster, served: PrivateHost) -> None:
    """5,000 handshakes that go no further, 1,000 connections that say nothing; p99 of another client's ping2."""
    async with _engine(cluster) as engine:
        stop = asyncio.Event()
        times: list[float] = []

        async def ping() -> None:
            while not stop.is_set():
                began = time.monotonic()
                assert (await engine.call("Host.ping2"))["result"] is True
                times.append(time.monotonic() - began)
                await asyncio.sleep(0.01)

        pinging = asyncio.create_task(ping())
        where = [address("management", 1), str(PORT), str(HALF_OPEN), str(SILENT)]
        flood = await asyncio.create_subprocess_exec(
            *fabric.enter(cluster.fabric_pid), sys.executable, "-c", FLOOD, *where, stdout=asyncio.subprocess.PIPE
        )
        told, _ = await flood.communicate()
        assert told == b"6000\n"
        stop.set()
        await pinging
    p99_ms = statistics.quantiles(times, n=100)[98] * 1000
    print(f"p99 of {len(times)} pings in the flood: {p99_ms:.1f} ms")
    assert p99_ms < 50
