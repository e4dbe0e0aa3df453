# SPDX-License-Identifier: GPL-2.0-or-later
"""A small server with verbs of its own, on a real unix socket."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import field
from pki import Pki
from ports import opened

from vdsm.api import registry
from vdsm.api.call import Call
from vdsm.api.registry import Verbs, verb
from vdsm.api.roles import Identity, Role
from vdsm.api.types import NoParams, Params, Uuid
from vdsm.certificates import places
from vdsm.common.encoded import Encoded
from vdsm.common.errors import AgentError
from vdsm.common.events import Events
from vdsm.rpc import tls
from vdsm.rpc.dispatcher import Caller, Dispatcher
from vdsm.rpc.listener import TcpListener, UnixListener
from vdsm.rpc.policy import PolicyFile
from vdsm.rpc.port import Address, EnginePort

VOLUME = "6a3b1f0e-0000-4000-8000-000000000001"


class DiskGone(AgentError):
    disk: str
    msg = "Disk {self.disk} is gone"
    remedy = "Plug disk {self.disk} in again"


class Server:
    """A dispatcher with its verbs; ``done`` lists what verbs did."""

    def __init__(self, folder: str) -> None:
        self.done: list[Any] = []
        self.gate = asyncio.Event()
        self.in_order: set[str] = set()  # verbs that have their order where they work
        self.held: dict[str, asyncio.Event] = {}  # verbs of VMs that wait until somebody sets theirs
        self.flows: list[str] = []
        self.is_ready = True
        self.events = Events()
        self.path = f"{folder}/vdsm.sock"
        self.has_started = True
        self.dispatcher = Dispatcher(
            SimpleNamespace(events=self.events),
            verbs(self),
            ready=lambda: self.is_ready,
            started=lambda: self.has_started,
        )
        self.unix = UnixListener(self.dispatcher, self.events, self.path)
        self.tcp = TcpListener(self.dispatcher, self.events, "127.0.0.1", 0)

    async def ask(self, data: bytes, role: Role = Role.ADMIN, client: str = "test", **more: Any) -> bytes | None:
        return await self.dispatcher.answer(data, Caller(Identity("tester", role, client), "test", **more))


class Two(Params):
    minuend: int
    subtrahend: int


class Many(Params):
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0
    e: int = 0


class OfVm(Params):
    vm_id: Uuid = field(name="vmID")


class Delete(Params):
    volume_id: Uuid = field(name="volumeID")
    password: str = ""


def verbs(server: Server) -> Verbs:
    table: Verbs = {}

    def reader(name: str, **more: Any) -> Any:
        return verb(name, role=Role.READER, into=table, **more)

    @reader("subtract")
    async def subtract(call: Call, params: Two) -> int:
        return params.minuend - params.subtrahend

    async def total(call: Call, params: Many) -> int:
        server.done.append(params)
        return params.a + params.b + params.c + params.d + params.e

    for name in ("sum", "update", "notify_sum", "notify_hello"):
        reader(name)(total)

    @reader("get_data")
    async def get_data(call: Call, params: NoParams) -> list[Any]:
        return ["hello", 5]

    @reader("get_much")
    async def get_much(call: Call, params: NoParams) -> str:
        return "x" * 30_000

    @reader("get_secrets")
    async def get_secrets(call: Call, params: NoParams) -> Any:
        return {"numbers": [1, 2.5, None, True], "texts": ["<graphics passwd='swordfish'/>"] * 10_000}

    @reader("get_encoded")
    async def get_encoded(call: Call, params: NoParams) -> Encoded:
        return Encoded(b"""[{"full":"passwd='swordfish'"}]""", b'[{"masked":1}]')

    @reader("Host.ping2", urgent=True)
    async def ping2(call: Call, params: NoParams) -> None:
        """Nothing."""

    @verb("Host.confirmConnectivity", role=Role.ADMIN, urgent=True, changes=False, into=table)
    async def confirm(call: Call, params: NoParams) -> None:
        """Nothing."""

    @reader("rpc.discover")
    async def discover(call: Call, params: NoParams) -> None:
        """Nothing."""

    @reader("Host.getStats")
    async def stats(call: Call, params: NoParams) -> None:
        """Nothing."""

    @reader("Host.getAllVmStats")
    async def all_stats(call: Call, params: NoParams) -> list[Any]:
        time.sleep(0.002)
        return []

    @reader("Host.flow")
    async def flow(call: Call, params: NoParams) -> str:
        return call.flow_id

    @reader("Host.wait")
    async def wait(call: Call, params: NoParams) -> None:
        server.done.append("started")
        await server.gate.wait()
        server.done.append("ended")

    @reader("Host.defect")
    async def defect(call: Call, params: NoParams) -> None:
        raise ValueError("the key is swordfish")

    @reader("Host.unencodable")
    async def unencodable(call: Call, params: NoParams) -> Any:
        return {"it": object()}

    @verb("Volume.delete", role=Role.ADMIN, into=table)
    async def delete(call: Call, params: Delete) -> None:
        server.done.append(params.volume_id)

    @verb("Volume.touch", role=Role.OPERATOR, into=table)
    async def touch(call: Call, params: NoParams) -> None:
        try:
            raise OSError("the key is swordfish")
        except OSError as e:
            raise DiskGone("sda") from e

    for name in ("pause", "cont", "create", "freeze", "thaw", "migrationCreate", "destroy", "getStats"):
        of_vm(server, table, f"VM.{name}")
    table["VM.desktopLock"] = registry.load()["VM.desktopLock"]
    return table


def of_vm(server: Server, table: Verbs, name: str) -> None:
    role = Role.READER if name.startswith("VM.get") else Role.OPERATOR

    @verb(name, role=role, into=table)
    async def run(call: Call, params: OfVm) -> None:
        server.done.append(f"{name} begins")
        if name in server.in_order:
            call.in_order()
        if name in server.held:
            await server.held[name].wait()
        server.done.append(f"{name} ends")


@pytest.fixture
async def server(tmp_path: Any) -> Any:
    server = Server(str(tmp_path))
    await server.unix.start()
    await server.tcp.start()
    yield server
    server.gate.set()
    for held in server.held.values():
        held.set()
    await server.unix.stop()
    await server.tcp.stop()
    await server.dispatcher.drain(5)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: Any) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def port(server: Server, pki: Pki) -> Any:
    certificates = tls.Certificates(places.host(str(pki.folder)))
    port = EnginePort(
        server.dispatcher,
        server.events,
        Address("::", 0),
        certificates=certificates,
        policy=PolicyFile(str(pki.folder)),
    )
    yield await opened(port)
    await port.stop()
