# SPDX-License-Identifier: GPL-2.0-or-later
"""What an admin reads when something at an edge is wrong: the host lacks it, libvirt is away or hangs, QEMU is odd."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from pathlib import Path
from typing import Any

import libvirt
import pytest

from vdsm.common.errors import DeadlineExceeded
from vdsm.virt import host_objects, mailbox, qemu_process
from vdsm.virt.domain_xml.named import Named
from vdsm.virt.errors import HostLacks, HypervisorError, HypervisorLost, TooManyStuckCalls
from vdsm.virt.hypervisor import ClockShift, DeviceAdded, DomainState, Sampled, Stats
from vdsm.virt.libvirt_edge import connection as connection_module
from vdsm.virt.libvirt_edge import event_loop
from vdsm.virt.libvirt_edge.workers import Workers
from vdsm.virt.qemu_process import QemuProcess
from vdsm.virt.stats.answers import Answers
from vdsm.virt.stats.sampler import Sampler
from vdsm.virt.stats.samples import Samples
from vdsm.virt.stats.troubles import Troubles
from vdsm.virt.vm import Vm

from .fakes import VM, FakeHypervisor, World, new_id, settle, until, xml_of
from .shown import ShownVm
from .test_libvirt_connection import Edge, Wire
from .test_libvirt_connection import edge as edge
from .test_libvirt_connection import wire as wire
from .test_workers import Hangs
from .test_workers import hangs as hangs

# What the host lacks

NOTHING = Named(frozenset(), frozenset(), frozenset(), frozenset(), spice_tls=False)


async def lacks(root: Path, **named: Any) -> str:
    wanted = {name: value if name == "spice_tls" else frozenset(value) for name, value in named.items()}
    fields = {name: getattr(NOTHING, name) for name in Named.__dataclass_fields__} | wanted
    hypervisor = FakeHypervisor(networks={"default"}, known_filters={"clean"})
    try:
        await host_objects.check(hypervisor, Named(**fields), root=str(root))
    except HostLacks as e:
        return str(e).removeprefix("The domain XML names what is not on this host: ")
    return ""


@pytest.mark.parametrize(
    ("kind", "names", "told"),
    [
        ("networks", ["default"], ""),
        ("networks", ["mine"], "the active libvirt network 'mine' (virsh net-define, net-start)"),
        (
            "networks",
            ["vdsm-red"],
            "the active libvirt network 'vdsm-red' (virsh net-define with forward mode 'bridge' and bridge 'red', "
            "net-start, net-autostart)",
        ),
        ("filters", ["clean"], ""),
        ("filters", ["mine"], "the network filter 'mine' (virsh nwfilter-define)"),
        (
            "filters",
            ["vdsm-no-mac-spoofing"],
            "the network filter 'vdsm-no-mac-spoofing' (virsh nwfilter-define with chain 'root' and references to "
            "'no-mac-spoofing' and 'no-arp-mac-spoofing')",
        ),
        ("bridges", ["red"], "the bridge 'red' (attach the network to this host)"),
        (
            "bridges",
            [";vdsmdummy;"],
            "the bridge ';vdsmdummy;' of vNICs without network (ip link add ';vdsmdummy;' type bridge)",
        ),
        ("folders", ["/run/x"], "the folder /run/x (make it, with QEMU's user as its owner)"),
    ],
)
async def test_what_is_missing_is_told_with_what_to_do(tmp_path: Path, kind: str, names: list[str], told: str) -> None:
    assert await lacks(tmp_path, **{kind: names}) == told


async def test_all_that_is_missing_is_told_in_order_of_names(tmp_path: Path) -> None:
    told = await lacks(tmp_path, bridges=["b", "a"], folders=["/d", "/c"], networks=["f", "e"], filters=["h", "g"])
    places = [told.index(word) for word in ("'a'", "'b'", "/c", "/d", "'e'", "'f'", "'g'", "'h'")]
    assert places == sorted(places)
    assert told.count("; ") == 7


@pytest.mark.parametrize(
    ("conf", "missing"),
    [
        ("spice_tls = 1\n", False),
        ("  spice_tls=1  # yes\n", False),
        ("x = 0\nspice_tls = 1", False),
        ("spice_tls = 0\n", True),
        ("spice_tls = 10\n", True),
        ("#spice_tls = 1\n", True),
        ("no_spice_tls = 1\n", True),
        (None, True),
    ],
)
async def test_tls_for_spice_is_what_qemus_configuration_says(tmp_path: Path, conf: str | None, missing: bool) -> None:
    (tmp_path / "etc/libvirt").mkdir(parents=True)
    if conf is not None:
        (tmp_path / "etc/libvirt/qemu.conf").write_text(conf)
    told = await lacks(tmp_path, spice_tls=True)
    assert told == (
        "TLS for SPICE (set spice_tls=1 and spice_tls_x509_cert_dir in /etc/libvirt/qemu.conf, restart libvirtd)"
        if missing
        else ""
    )
    assert await lacks(tmp_path, spice_tls=False) == ""


async def test_what_only_root_can_see_is_taken_for_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(*_given: object, **_more: object) -> None:
        raise PermissionError(13, "hidden")

    monkeypatch.setattr(host_objects.os, "stat", hidden)  # type: ignore[attr-defined]
    monkeypatch.setattr("builtins.open", hidden)
    assert await lacks(tmp_path, bridges=["red"], folders=["/run/x"], spice_tls=True) == ""


async def test_a_path_through_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    assert "/run/x" in await lacks(tmp_path, folders=["/run/x"])


# Processes of QEMU


def process(proc: Path, pid: int, state: str, started: int = 19, cmdline: bytes = b"") -> QemuProcess:
    folder = proc / str(pid)
    (folder / "task" / str(pid)).mkdir(parents=True)
    rest = [str(number) for number in range(1, 40)]
    rest[18] = str(started)
    (folder / "stat").write_text(f"{pid} (qemu) x) {state} {' '.join(rest)}")
    (folder / "cmdline").write_bytes(cmdline)
    return QemuProcess(pid, started)


@pytest.mark.parametrize(
    ("state", "lives", "hangs"),
    [("R", True, False), ("S", True, False), ("D", True, True), ("Z", False, False), ("X", False, False)],
)
def test_a_process_lives_and_hangs_as_the_kernel_says(tmp_path: Path, state: str, lives: bool, hangs: bool) -> None:
    found = process(tmp_path, 7, state)
    assert (qemu_process.lives(found, str(tmp_path)), qemu_process.hangs(found, str(tmp_path))) == (lives, hangs)


def test_a_zombie_with_a_thread_that_hangs_hangs(tmp_path: Path) -> None:
    found = process(tmp_path, 7, "Z")
    (tmp_path / "7/task/8").mkdir()
    assert qemu_process.hangs(found, str(tmp_path))


def test_a_zombie_whose_threads_can_not_be_seen_has_none(tmp_path: Path) -> None:
    found = process(tmp_path, 7, "Z")
    (tmp_path / "7/task/7").rmdir()
    (tmp_path / "7/task").rmdir()
    assert not qemu_process.lives(found, str(tmp_path))


def test_a_process_that_is_not_there_neither_lives_nor_hangs(tmp_path: Path) -> None:
    found = QemuProcess(7, 19)
    assert not qemu_process.lives(found, str(tmp_path)) and not qemu_process.hangs(found, str(tmp_path))
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text("7 (x) S 1 2")  # cut off
    assert not qemu_process.lives(found, str(tmp_path))


def test_processes_are_found_by_their_vm(tmp_path: Path) -> None:
    one, two = new_id(), new_id()
    process(tmp_path, 7, "S", 70, b"\0".join([b"/usr/bin/qemu", b"-uuid", one.encode(), b"-smp", b"2"]))
    process(tmp_path, 8, "S", 80, b"\0".join([b"/usr/bin/qemu", b"-name", b"x", b"-uuid", two.encode(), b""]))
    process(tmp_path, 9, "S", 90, b"sh\0-c\0echo -uuid x")
    process(tmp_path, 10, "S", 100, b"")
    (tmp_path / "meminfo").write_text("x")
    ended = b"\0".join([b"/usr/bin/qemu", b"-uuid", new_id().encode()])
    process(tmp_path, 11, "S", 110, ended)
    (tmp_path / "11/stat").unlink()
    assert qemu_process.find_all(proc=str(tmp_path)) == {one: QemuProcess(7, 70), two: QemuProcess(8, 80)}


async def test_a_kernel_that_can_not_watch_a_process_is_believed_by_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int) -> int:
        raise OSError("no such call")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert not await qemu_process.wait_gone(QemuProcess(os.getpid(), started), 0.01)
    assert await qemu_process.wait_gone(QemuProcess(os.getpid(), started + 1), 0.01)


# What a VM hears and sees


async def up(world: World, **xml: Any) -> Vm:
    vm = await world.vms.create(VM, xml_of(**xml))
    await until(lambda: vm.status.stored == "Up")
    await settle()
    return vm


async def test_an_event_that_is_left_out_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    vm = await up(world)
    for number in range(mailbox.EVENTS_LIMIT + 1):
        vm.hear(ClockShift(VM, number))
    told = [r.getMessage() for r in caplog.records]
    assert told == [f"VM {VM}: too many events: {ClockShift(VM, mailbox.EVENTS_LIMIT)} is left out"]


async def test_an_xml_that_can_not_be_read_leaves_what_was_known_and_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    vm = await up(world)
    before = vm.description
    world.hypervisor.found[VM].xml = "<domain"
    for _ in range(3):
        world.hypervisor.hear(DeviceAdded(VM, "x"))
        await settle()
    assert vm.description is before
    (told,) = [r.getMessage() for r in caplog.records]
    assert told.startswith(f"VM {VM}: libvirt's XML of VM {VM} is not valid XML: ")
    assert told.endswith("; what was known before stays")


async def test_what_a_look_can_not_take_over_is_told_and_the_next_one_is_taken(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vm = await up(world)
    with monkeypatch.context() as patch:
        patch.setattr(vm, "_read", lambda _domain: 1 / 0)
        assert await vm.look.fresh()
    (told,) = caplog.records
    assert told.getMessage() == f"VM {VM}: what libvirt says of it could not be taken over"
    assert told.exc_info
    world.hypervisor.found[VM].state = DomainState.PAUSED
    await vm.look.fresh()
    assert vm.status.reported == "Paused"


async def test_a_look_without_an_answer_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    vm = await up(world)

    async def late(_vm_id: str) -> None:
        raise DeadlineExceeded("libvirt: look at the domain", 20)

    world.hypervisor.domain = late  # type: ignore[method-assign]
    assert not await vm.look.fresh()
    assert f"VM {VM}: libvirt: look at the domain did not end within 20 s" in caplog.text


# Statistics


class Source:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def statistics(self) -> Stats:
        raise DeadlineExceeded("libvirt: read statistics", 15)

    async def statistics_of(self, _vm_id: str) -> Sampled:
        raise self.error


@pytest.mark.parametrize("error", [HypervisorLost("read"), TooManyStuckCalls("libvirt/statistics", 3, "x for 9 s")])
async def test_a_libvirt_that_answers_nobody_is_told_once(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    vms = {vm.vm_id: vm for vm in (ShownVm(new_id()) for _ in range(3))}
    samples = Samples()
    sampler = Sampler(Source(error), samples, Answers(samples), lambda: vms, period_s=0.001)
    sampler.start()
    await asyncio.sleep(0.03)
    await sampler.stop()
    assert [r.getMessage() for r in caplog.records] == [
        "no statistics of all VMs at once, they are asked one by one: libvirt: read statistics did not end within 15 s",
        f"no statistics: {error}",
    ]


def test_a_trouble_is_told_again_when_it_is_another_or_was_over(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    for _ in range(2):
        troubles.tell("a", "text", HypervisorError("x", 1, "one"))
    troubles.tell("a", "text", HypervisorLost("x"))
    troubles.tell("b", "other", HypervisorError("x", 1, "two"))
    assert len(caplog.records) == 3
    assert (troubles.over("a"), troubles.over("a"), troubles.over("c")) == (True, False, False)
    troubles.tell("a", "text", HypervisorError("x", 1, "three"))
    troubles.keep_only({"a"})
    troubles.tell("a", "text", HypervisorError("x", 1, "four"))
    troubles.tell("b", "other", HypervisorError("x", 1, "five"))
    assert [r.getMessage() for r in caplog.records[3:]] == [
        "text: libvirt failed to x: three",
        "other: libvirt failed to x: five",
    ]
    assert not any(r.exc_info for r in caplog.records)


def test_a_defect_without_words_is_told_by_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    Troubles().tell("a", "text", ZeroDivisionError())
    (told,) = caplog.records
    assert told.getMessage() in ("text: ZeroDivisionError", "text: ")
    assert told.exc_info


async def test_a_defect_in_samples_is_told_by_what_it_costs(caplog: pytest.LogCaptureFixture) -> None:
    samples = Samples()
    sampler = Sampler(Source(HypervisorLost("x")), samples, Answers(samples), lambda: 1 / 0, period_s=0.001)  # type: ignore[arg-type, return-value]
    sampler.start()
    await asyncio.sleep(0.01)
    await sampler.stop()
    (told,) = caplog.records
    assert told.getMessage() == "statistics of VMs: division by zero"
    assert told.exc_info


# libvirt


async def test_a_call_that_hangs_is_told_and_so_is_its_return(hangs: Hangs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt.libvirt")
    workers = Workers("pool", 1, slow_s=0.001)
    with pytest.raises(DeadlineExceeded):
        await workers.call("pause", 0.01, hangs)
    hangs.release.set()
    await until(lambda: not workers.stuck)
    assert [r.getMessage() for r in caplog.records] == [
        "pool: 'pause' hangs; 1 do",
        "pool: 'pause' came back after 0 s",
    ]
    workers.stop()


async def test_a_call_that_ends_in_time_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt.libvirt")
    workers = Workers("pool", 1)
    await workers.call("pause", 1.0, lambda: None)
    assert caplog.records == []
    workers.stop()


async def test_a_libvirt_that_is_away_is_told_with_its_address_and_so_is_its_return(
    edge: Edge, wire: Wire, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "vdsm.virt.libvirt")
    monkeypatch.setattr(connection_module, "_RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(connection_module, "_RETRY_LAST_S", 0.003)
    wire.there = False
    await edge.hypervisor.start(edge.heard.append)
    await until(lambda: wire.tries > 4)
    wire.there = True
    await edge.hypervisor.domains()
    wire.cut()
    await edge.comes_back()
    told = [r.getMessage() for r in caplog.records if r.name == "vdsm.virt.libvirt"]
    assert told[0].startswith("can't connect to libvirt some://uri: ")
    assert [line.rpartition("trying again in ")[2] for line in told[:3]] == ["0.0 s"] * 3
    assert not any(r.exc_info for r in caplog.records)
    after = [line for line in told if "trying again" not in line]
    assert after == [
        "connected to libvirt some://uri",
        "the connection to libvirt is closed; VMs run on",
        "connected to libvirt some://uri",
    ]


async def test_the_agents_own_end_is_no_loss_of_the_connection(
    edge: Edge, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    await edge.start()
    await edge.hypervisor.stop()
    assert "closed" not in caplog.text


def test_libvirts_event_loop_goes_on_after_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    turns: list[object] = []

    class Ended(Exception):
        """Of the test: the loop itself never ends."""

    real = libvirt.virEventRunDefaultImpl

    def turn() -> None:
        if threading.current_thread() is not threading.main_thread():  # other tests' connections need theirs
            real()
            return
        turns.append(1)
        if len(turns) == 1:
            raise libvirt.libvirtError("poll failed")
        if len(turns) == 3:
            raise Ended

    monkeypatch.setattr(libvirt, "virEventRunDefaultImpl", turn)
    monkeypatch.setattr(event_loop.time, "sleep", turns.append)  # type: ignore[attr-defined]
    with pytest.raises(Ended):
        event_loop._run()
    assert turns == [1, 0.5, 1]
    assert "libvirt's event loop: poll failed" in caplog.text


def test_libvirts_event_loop_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(event_loop, "_running", False)
    monkeypatch.setattr(libvirt, "registerErrorHandler", lambda _handler, _context: made.append("errors"))
    monkeypatch.setattr(libvirt, "virEventRegisterDefaultImpl", lambda: made.append("loop"))
    monkeypatch.setattr(libvirt, "virEventAddTimeout", lambda ms, _callback, _opaque: made.append(f"{ms} ms"))
    monkeypatch.setattr(event_loop, "_run", lambda: made.append(threading.current_thread().name))
    event_loop.ensure_event_loop()
    event_loop.ensure_event_loop()
    for thread in threading.enumerate():
        if thread.name == "libvirt/events":
            thread.join(0.05)
    assert made == ["errors", "loop", "3600000 ms", "libvirt/events"]
