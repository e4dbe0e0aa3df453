# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates with roles on a real host: what an operator and a reader can do there, and what they can't."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from lxml import etree

from contrib.lab import engine, netns, vm_xml
from contrib.lab.authority import Identity
from contrib.lab.cluster import Cluster, address
from contrib.lab.host import PrivateHost
from contrib.lab.spec import PYTHON
from tests.failure_logs import watched
from tests.peers import JavaPeer
from vdsm.api import registry
from vdsm.api.roles import Role

PORT = 54321
FORBIDDEN = -32001
POLICY = """
default = "admin"
[[certificate]]
name = "operator*"
role = "operator"
[[certificate]]
name = "reader"
role = "reader"
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(hosts=1) as cluster, watched(*cluster.hosts):
        (host,) = cluster.hosts
        host.path("/etc/vdsm/access.toml").write_text(POLICY)
        host.start_agent()
        yield cluster


@pytest.fixture
def served(cluster: Cluster) -> PrivateHost:
    return cluster.hosts[0]


async def _connect(cluster: Cluster, identity: Identity) -> JavaPeer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(identity.ca)
    context.load_cert_chain(identity.certificate, identity.key)
    peer = JavaPeer(PORT, context, netns.connect(cluster.fabric_pid, address("management", 1), PORT))
    await peer.connect()
    return peer


@pytest.fixture
async def operator(cluster: Cluster) -> AsyncIterator[JavaPeer]:
    peer = await _connect(cluster, cluster.issue("operator-joe"))
    yield peer
    await peer.close()


@pytest.fixture
async def reader(cluster: Cluster) -> AsyncIterator[JavaPeer]:
    peer = await _connect(cluster, cluster.issue("reader"))
    yield peer
    await peer.close()


def _domain(disks: list[vm_xml.Disk]) -> etree._Element:
    """A VM that an operator may start: no serial log, which is a file of the host."""
    vm = vm_xml.Vm(str(uuid.uuid4()), f"vm-{uuid.uuid4().hex[:6]}", disks=disks)
    root = etree.fromstring(vm_xml.to_xml(vm))
    for serial in root.findall("devices/serial"):
        root.find("devices").remove(serial)  # type: ignore[union-attr]
    return root


async def _create(peer: JavaPeer, root: etree._Element) -> Any:
    text = etree.tostring(root, encoding="unicode")
    return await peer.call("VM.create", {"vmID": root.findtext("uuid"), "vmParams": {"xml": text}})


def _audit(host: PrivateHost, verb: str, name: str) -> list[str]:
    lines = host.path("/var/log/vdsm/agent.log").read_text().splitlines()
    return [line for line in lines if f"{verb} by {name} over stomp" in line]


async def _status(peer: JavaPeer, vm_id: str) -> str:
    reply = await peer.call("VM.getStats", {"vmID": vm_id})
    return reply["result"][0]["status"] if "result" in reply else "none"


@pytest.mark.cost(20)
async def test_an_operator_runs_a_vm_from_an_image(cluster: Cluster, served: PrivateHost, operator: JavaPeer) -> None:
    async with served.client() as admin:
        pool = await engine.new_pool(admin, connection=cluster.connection())
        volume = await engine.create_volume(admin, pool, size_bytes=8 << 20)
    root = _domain([volume.disk()])
    vm_id = str(root.findtext("uuid"))
    assert (await _create(operator, root))["result"]["status"] == "WaitForLaunch"
    async with asyncio.timeout(60):
        while (status := await _status(operator, vm_id)) not in ("Up", "Down"):
            await asyncio.sleep(0.1)
    assert status == "Up"
    assert (await operator.call("VM.destroy", {"vmID": vm_id}))["result"] is True
    assert len(_audit(served, "VM.create", "operator-joe")) == 1


def _host_file(root: etree._Element) -> None:
    disk = etree.SubElement(root.find("devices"), "disk", type="file", device="disk")  # type: ignore[arg-type]
    etree.SubElement(disk, "source", file="/etc/shadow")
    etree.SubElement(disk, "target", dev="vdx", bus="virtio")


def _file_of_a_disk_whose_image_is_in_doubt(root: etree._Element) -> None:
    """The metadata stands there twice: with ids, and without."""
    vm = "{http://ovirt.org/vm/1.0}"
    metadata = root.find(f"metadata/{vm}vm")
    for ids in ({name: str(uuid.uuid4()) for name in ("poolID", "domainID", "imageID", "volumeID")}, {}):
        device = etree.SubElement(metadata, f"{vm}device", devtype="disk", name="vdx")  # type: ignore[arg-type]
        for name, value in ids.items():
            etree.SubElement(device, f"{vm}{name}").text = value
    disk = etree.SubElement(root.find("devices"), "disk", type="file", device="disk")  # type: ignore[arg-type]
    ids = [str(uuid.uuid4()) for _ in range(4)]
    path = "/rhev/data-center/{}/{}/images/{}/{}".format(*ids)
    etree.SubElement(disk, "source", file=path)
    etree.SubElement(disk, "driver", name="qemu", type="qcow2")
    etree.SubElement(disk, "target", dev="vdx", bus="virtio")


def _emulator(root: etree._Element) -> None:
    etree.SubElement(root.find("devices"), "emulator").text = "/tmp/qemu"  # type: ignore[arg-type]


def _command_line(root: etree._Element) -> None:
    line = etree.SubElement(root, f"{{{'http://libvirt.org/schemas/domain/qemu/1.0'}}}commandline")
    etree.SubElement(line, f"{{{'http://libvirt.org/schemas/domain/qemu/1.0'}}}arg", value="-snapshot")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_host_file, "@file may not be '/etc/shadow'"),
        (_file_of_a_disk_whose_image_is_in_doubt, "metadata of disk vdx: it stands there twice"),
        (_emulator, "emulator[1] is not on the list"),
        (_command_line, "qemu:commandline[1] is not on the list"),
    ],
)
async def test_an_operator_s_vm_reaches_nothing_of_the_host(
    served: PrivateHost, operator: JavaPeer, change: Any, told: str
) -> None:
    root = _domain([])
    change(root)
    error = (await _create(operator, root))["error"]
    assert error["code"] == FORBIDDEN
    assert told in error["message"]
    vm_id = str(root.findtext("uuid"))
    domains = served.run(["virsh", "-c", "qemu:///system", "list", "--all", "--uuid"]).stdout.decode()
    assert vm_id not in domains
    (line,) = [line for line in _audit(served, "VM.create", "operator-joe") if vm_id in line]
    assert told in line


async def test_a_reader_changes_nothing_and_every_attempt_is_in_the_log(served: PrivateHost, reader: JavaPeer) -> None:
    changing = [verb.name for verb in registry.load().values() if verb.changes]
    assert len(changing) > 100
    reading = [verb.name for verb in registry.load().values() if not verb.changes and verb.role is not Role.READER]
    for name in changing + reading:
        reply = await reader.call(name)
        assert reply["error"]["code"] == FORBIDDEN, (name, reply)
    for name in changing:
        assert len(_audit(served, name, "reader")) == 1, name
    assert (await reader.call("Host.getStats"))["result"]["vmCount"] in (0, "0")


def _command(served: PrivateHost, *words: str) -> Any:
    return served.run([PYTHON, "-m", *words], check=False)


def test_the_field_s_command_calls_and_prints_as_ever(served: PrivateHost) -> None:
    done = _command(served, "vdsm.cli.vdsm_client", "--flow-id", "f-4711", "Host", "getCapabilities")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["uuid"] == served.spec.host_id
    assert done.stdout.decode() == json.dumps(found, indent=4, sort_keys=True) + "\n"
    failed = _command(served, "vdsm.cli.vdsm_client", "VM", "getStats", f"vmID={engine.BLANK}")
    assert failed.returncode == 1
    assert failed.stdout == b""
    assert failed.stderr.decode().startswith(
        f"vdsm-client: Command VM.getStats with args {{'vmID': '{engine.BLANK}'}} failed:\n(code=1, message="
    )
    refused = _command(served, "vdsm.cli.vdsm_client", "--insecure", "Host", "ping2")
    assert refused.returncode == 1
    assert b"use_tls=False" in refused.stderr


def test_the_flow_id_of_a_command_stands_in_the_agent_s_log(served: PrivateHost) -> None:
    _command(served, "vdsm.cli.vdsm_client", "--flow-id", "f-4712", "VM", "destroy", f"vmID={engine.BLANK}")
    assert any("f-4712" in line for line in served.path("/var/log/vdsm/agent.log").read_text().splitlines())


def test_vdsm_call_reaches_a_host_by_its_port(served: PrivateHost) -> None:
    done = _command(served, "vdsm.cli", "--host", address("management", 1), "call", "Host.ping2", "--json")
    assert (done.returncode, done.stdout) == (0, b"true\n"), done.stderr


@pytest.mark.cost(10)
async def test_a_new_authority_made_on_the_host_is_the_one_that_counts(cluster: Cluster, served: PrivateHost) -> None:
    """`vdsm cert init` while the agent runs: the old authority's clients are strangers, new ones come in."""
    assert _command(served, "vdsm.cli", "cert", "init", "--force", "--name", "host1").returncode == 0
    made = _command(served, "vdsm.cli", "cert", "issue", "reader", "--out", "/tmp/reader")
    assert made.returncode == 0, made.stderr
    files = [served.path(f"/tmp/reader/{name}") for name in ("cacert.pem", "reader.pem", "reader.key")]
    async with asyncio.timeout(10):
        while True:
            try:
                peer = await _connect(cluster, Identity(*files))
                break
            except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)
    assert (await peer.call("Host.ping2"))["result"] is True
    await peer.close()
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await _connect(cluster, cluster.engine_identity)
    status = _command(served, "vdsm.cli", "cert", "status", "--json")
    assert json.loads(status.stdout)[0]["problems"] == []
