# SPDX-License-Identifier: GPL-2.0-or-later
"""Each call to libvirt: in which pool, for how long, under which name it is told, and what is asked of libvirt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from vdsm.virt.errors import DomainMissing, HypervisorError, HypervisorLost
from vdsm.virt.libvirt_edge import watched
from vdsm.virt.libvirt_edge.connection import Connection
from vdsm.virt.libvirt_edge.failures import is_connection_loss, says_nothing, translate
from vdsm.virt.libvirt_edge.libvirt_hypervisor import LibvirtHypervisor

from .fakes import VM

Verb = Callable[[LibvirtHypervisor], Any]

# verb, pool, seconds, its name, may it be repeated
CALLS: list[tuple[Verb, str, float, str, bool]] = [
    (lambda h: h.domain(VM), "read", 20, "look at the domain", True),
    (lambda h: h.disk_errors(VM), "read", 20, "ask for errors of its disks", True),
    (lambda h: h.launch(VM, 0), "launch", 180, "start the domain", False),
    (lambda h: h.pause(VM), "change", 60, "pause the domain", False),
    (lambda h: h.resume(VM), "change", 60, "resume the domain", False),
    (lambda h: h.reset(VM), "change", 60, "reset the domain", False),
    (lambda h: h.set_metadata(VM, "<x/>"), "change", 60, "write its metadata", False),
    (lambda h: h.ask_shutdown(VM), "change", 60, "press the power button", False),
    (lambda h: h.ask_reboot(VM), "change", 60, "ask for a reboot", False),
    (lambda h: h.ask_agent_shutdown(VM), "agent", 60, "ask the guest agent to shut down", False),
    (lambda h: h.ask_agent_reboot(VM), "agent", 60, "ask the guest agent to reboot", False),
    (lambda h: h.freeze(VM), "agent", 180, "freeze the guest's file systems", False),
    (lambda h: h.thaw(VM), "agent", 180, "thaw the guest's file systems", False),
    (lambda h: h.terminate(VM), "end", 60, "end QEMU by SIGTERM", False),
    (lambda h: h.kill(VM), "end", 60, "kill QEMU", False),
    (lambda h: h.undefine(VM), "end", 60, "undefine the domain", False),
]
OF_THE_HOST: list[tuple[Verb, str, float, str, bool]] = [
    (lambda h: h.domains(), "read", 20, "list domains", True),
    (lambda h: h.define("<domain/>"), "change", 60, "define the domain", False),
    (lambda h: h.active_networks(), "read", 20, "list networks", True),
    (lambda h: h.filters(), "read", 20, "list network filters", True),
    (lambda h: h.host_documents("kvm"), "read", 20, "read what the host can do", True),
]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, str, bool, str]]:
    """Calls as they reach the connection."""
    calls: list[tuple[str, float, str, bool, str]] = []

    async def call(_self: object, workers: Any, what: str, timeout_s: float, _run: object, **more: Any) -> None:
        calls.append((workers.name, timeout_s, what, more["repeat"], more["vm_id"]))

    monkeypatch.setattr(Connection, "call", call)
    return calls


def hypervisor() -> LibvirtHypervisor:
    found = LibvirtHypervisor("test:///default")
    found._connection = Connection("x", lambda: pytest.fail("it is not opened"), lambda: None)
    return found


@pytest.mark.parametrize(
    ("row", "vm_id"),
    [pytest.param(row, VM, id=row[3]) for row in CALLS] + [pytest.param(row, "", id=row[3]) for row in OF_THE_HOST],
)
async def test_each_call_has_its_pool_its_time_and_its_name(
    row: tuple[Verb, str, float, str, bool], vm_id: str, made: list[Any]
) -> None:
    verb, pool, seconds, name, repeat = row
    await verb(hypervisor())
    assert made == [(f"libvirt/{pool}", seconds, name, repeat, vm_id)]


async def test_a_call_before_the_start_is_refused_by_its_name() -> None:
    with pytest.raises(HypervisorError, match="failed to kill QEMU: the connection was not started"):
        await LibvirtHypervisor().kill(VM)
    await LibvirtHypervisor().stop()


async def test_the_real_host_is_the_default() -> None:
    assert LibvirtHypervisor()._uri == "qemu:///system"


class Domain:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given: self.asked.append((name, *given))


@pytest.mark.parametrize(
    ("verb", "asked"),
    [
        (lambda h: h.reset(VM), ("reset", 0)),
        (lambda h: h.kill(VM), ("destroyFlags", 0)),
        (lambda h: h.terminate(VM), ("destroyFlags", libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)),
        (
            lambda h: h.undefine(VM),
            (
                "undefineFlags",
                libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
                | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE,
            ),
        ),
    ],
)
async def test_what_is_asked_of_libvirt(verb: Verb, asked: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    domain = Domain()

    class Connect:
        def lookupByUUIDString(self, vm_id: str) -> Domain:
            assert vm_id == VM
            return domain

    async def call(
        _self: object, _workers: object, _what: str, _timeout_s: float, run: Callable[[Any], Any], **_more: Any
    ) -> Any:
        return run(Connect())

    monkeypatch.setattr(Connection, "call", call)
    await verb(hypervisor())
    assert domain.asked == [asked]


async def test_what_the_host_can_do_is_read_for_the_type_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    class Connect:
        def getDomainCapabilities(self, *given: Any) -> str:
            asked.append(given)
            return "<domainCapabilities/>"

        def getCapabilities(self) -> str:
            return "<capabilities/>"

        def getLibVersion(self) -> int:
            return 9000000

        def getVersion(self) -> int:
            return 7002000

        def listNWFilters(self) -> list[str]:
            return ["clean-traffic", "x"]

    async def call(_self: object, _w: object, _what: str, _s: float, run: Callable[[Any], Any], **_more: Any) -> Any:
        return run(Connect())

    monkeypatch.setattr(Connection, "call", call)
    told = await hypervisor().host_documents("qemu")
    assert told == ("<capabilities/>", "<domainCapabilities/>", 9000000, 7002000)
    assert asked == [(None, None, None, "qemu", 0)]
    assert await hypervisor().filters() == {"clean-traffic", "x"}


# Errors


def error(code: int | None, domain: int = libvirt.VIR_FROM_QEMU, text: str | None = "no way") -> libvirt.libvirtError:
    made = libvirt.libvirtError("virDomainX() failed")
    made.err = None if code is None else (code, domain, text, 2, None, None, None, -1, -1)
    return made


RPC, REMOTE, QEMU = libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_QEMU


@pytest.mark.parametrize(
    ("code", "domain", "lost"),
    [
        (libvirt.VIR_ERR_INVALID_CONN, QEMU, True),
        (libvirt.VIR_ERR_RPC, RPC, True),
        (libvirt.VIR_ERR_SYSTEM_ERROR, RPC, True),
        (libvirt.VIR_ERR_INTERNAL_ERROR, RPC, True),
        (libvirt.VIR_ERR_NO_CONNECT, REMOTE, True),
        (libvirt.VIR_ERR_SYSTEM_ERROR, QEMU, False),
        (libvirt.VIR_ERR_INTERNAL_ERROR, QEMU, False),
        (libvirt.VIR_ERR_OPERATION_FAILED, RPC, False),
    ],
)
def test_a_connection_is_lost_when_the_wire_says_so(code: int, domain: int, lost: bool) -> None:
    broke = error(code, domain)
    assert is_connection_loss(broke) is lost
    assert says_nothing(broke) is lost
    assert isinstance(translate("do it", VM, broke), HypervisorLost) is lost


def test_errors_are_told_in_libvirts_words_with_its_code() -> None:
    missing = translate("look", VM, error(libvirt.VIR_ERR_NO_DOMAIN))
    assert isinstance(missing, DomainMissing) and missing.vm_id == VM
    refused = translate("look", VM, error(libvirt.VIR_ERR_OPERATION_FAILED))
    assert isinstance(refused, HypervisorError)
    assert (refused.call, refused.code, refused.text) == ("look", libvirt.VIR_ERR_OPERATION_FAILED, "no way")
    lost = translate("look", VM, error(libvirt.VIR_ERR_INVALID_CONN))
    assert isinstance(lost, HypervisorLost) and lost.call == "look"


def test_an_error_without_a_word_has_the_name_of_libvirts_function() -> None:
    nothing = error(None)
    assert says_nothing(nothing) and not is_connection_loss(nothing)
    told = translate("look", VM, nothing)
    assert isinstance(told, HypervisorError)
    assert (told.code, told.text) == (0, "virDomainX() failed")


# Keep-alive


class Opened:
    def __init__(self, refuses: int | None = None) -> None:
        self.kept: list[tuple[int, int]] = []
        self._refuses = refuses

    def setKeepAlive(self, interval_s: int, count: int) -> None:
        self.kept.append((interval_s, count))
        if self._refuses is not None:
            raise error(self._refuses)

    registerCloseCallback = setKeepAlive


def test_a_connection_that_is_silent_for_thirty_seconds_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, uris = Opened(), []
    monkeypatch.setattr(libvirt, "open", lambda uri: uris.append(uri) or opened)
    assert watched.open_connection("qemu:///system") is opened
    assert (uris, opened.kept) == (["qemu:///system"], [(10, 2)])


def test_a_driver_without_keep_alive_is_taken_and_any_other_refusal_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = Opened(libvirt.VIR_ERR_NO_SUPPORT)
    monkeypatch.setattr(libvirt, "open", lambda _uri: opened)
    assert watched.open_connection("x") is opened
    opened = Opened(libvirt.VIR_ERR_RPC)
    with pytest.raises(libvirt.libvirtError):
        watched.open_connection("x")


def test_a_connection_that_can_not_tell_of_its_close_is_an_error_unless_nothing_can_break() -> None:
    class Listener:
        heard = False
        registered: Any = None

        def register(self, connect: Any) -> None:
            self.registered = connect

        def end(self) -> None: ...

    opened, listener = Opened(libvirt.VIR_ERR_NO_SUPPORT), Listener()
    watched.Watched(opened, listener).watch(lambda: None)  # type: ignore[arg-type]
    assert listener.registered is opened
    with pytest.raises(libvirt.libvirtError):
        watched.Watched(Opened(libvirt.VIR_ERR_RPC), listener).watch(lambda: None)  # type: ignore[arg-type]
