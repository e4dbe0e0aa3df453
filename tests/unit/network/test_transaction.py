# SPDX-License-Identifier: GPL-2.0-or-later
"""A change that fails anywhere, for any reason, leaves the old networks and a way for the next change."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_plan import BLUE, START, Model

from network import journal, rollback, transaction
from network.errors import NotPending, NotWritten, RollbackIncomplete, SetupFailed
from network.journal import Folder
from network.kernel import StepFailed
from network.model import Network, Request
from network.plan import Step
from network.state import State
from network.transaction import Transactions
from network.waiting import RETRY_S, Restorer

RED = Network("red", "eth1")
REAL_SWITCH = transaction.Switch
FULL = OSError(errno.ENOSPC, "No space left on device")


class Switch:
    """The process that would undo the change, without the process."""

    def __init__(self, folder: Folder, journal_id: str) -> None:
        self.journal_id = journal_id
        self.is_armed = True

    def disarm(self) -> None:
        self.is_armed = False


class Host(Model):
    """The kernel; ``broken`` may raise in place of a step."""

    def __init__(self) -> None:
        super().__init__(START)
        self.broken: Callable[[Step], None] = lambda step: None

    def do(self, step: Step) -> None:
        self.broken(step)
        super().do(step)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()

    @contextmanager
    def opened() -> Iterator[Host]:
        yield host

    for module in (transaction, rollback):
        monkeypatch.setattr(module, "opened", opened)
    monkeypatch.setattr(transaction, "Switch", Switch)
    return host


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "network"))


def ask(*networks: Network, removed: tuple[str, ...] = ()) -> Request:
    return Request({net.name: net for net in networks}, removed)


def change(changes: Transactions, request: Request, *, persist: bool = False) -> None:
    changes.keep(changes.setup(request, wait_s=0, persist=persist))


def full(monkeypatch: pytest.MonkeyPatch, name: str, written: Callable[[bytes], bool] = lambda data: True) -> None:
    """The disk takes no more of that file."""
    real = journal.write_atomic

    def write(path: str, data: bytes, *more: Any) -> None:
        if Path(path).name == name and written(data):
            raise FULL
        real(path, data, *more)

    monkeypatch.setattr(journal, "write_atomic", write)


def test_a_rollback_that_can_t_be_armed_refuses_this_change_only(
    host: Host, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def popen(*_: Any, **__: Any) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    changes = Transactions(folder)
    with monkeypatch.context() as broken:
        broken.setattr(subprocess, "Popen", popen)
        broken.setattr(transaction, "Switch", REAL_SWITCH)
        with pytest.raises(SetupFailed, match="arming the rollback: Resource temporarily unavailable"):
            changes.setup(ask(BLUE), wait_s=0, persist=False)
    change(changes, ask(BLUE))
    assert set(folder.running()) == {"blue"}


@pytest.mark.parametrize(
    ("error", "told"),
    [(StepFailed("link_set", "no"), SetupFailed), (FULL, OSError), (KeyError("unforeseen"), KeyError)],
    ids=["the kernel", "the system", "a fault"],
)
def test_a_step_that_fails_for_any_reason_is_undone_and_the_next_change_goes_on(
    host: Host, folder: Folder, error: Exception, told: type[Exception]
) -> None:
    def fail(step: Step) -> None:
        if step.op == "link_set" and step.args.get("master") == "blue":
            raise error

    before, changes, host.broken = host.seen(), Transactions(folder), fail
    with pytest.raises((told, SetupFailed)):
        changes.setup(ask(BLUE), wait_s=0, persist=False)
    assert (host.seen(), folder.journal()) == (before, None)
    host.broken = lambda step: None
    change(changes, ask(BLUE))


def test_a_full_disk_refuses_a_change_before_anything_is_done(
    host: Host, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, "journal")
    before = host.seen()
    with pytest.raises(SetupFailed, match="writing the journal: No space left on device"):
        Transactions(folder).setup(ask(BLUE), wait_s=0, persist=False)
    assert host.seen() == before


def test_a_change_that_can_t_be_written_down_is_undone(
    host: Host, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, changes = host.seen(), Transactions(folder)
    waits = changes.setup(ask(BLUE), wait_s=0, persist=False)
    full(monkeypatch, "journal")
    with pytest.raises(SetupFailed, match="writing down that it stays"):
        changes.keep(waits)
    assert (host.seen(), folder.journal()) == (before, None)


def test_a_change_that_is_kept_but_not_recorded_is_recorded_by_the_next_one(
    host: Host, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = Transactions(folder)
    with monkeypatch.context() as now:
        full(now, "persistent")
        with pytest.raises(NotWritten, match="No space left on device"):
            change(changes, ask(BLUE), persist=True)
    change(changes, ask(RED))
    assert (set(folder.running()), set(folder.persistent())) == ({"blue", "red"}, {"blue"})


def test_a_rollback_that_failed_is_done_by_the_next_change(host: Host, folder: Folder) -> None:
    def stuck(step: Step) -> None:
        if step.op == "link_set" and step.args.get("name") == "eth0":
            raise StepFailed(str(step), "Device or resource busy")

    changes = Transactions(folder)
    host.broken = stuck
    with pytest.raises(RollbackIncomplete, match="Device or resource busy"):
        changes.setup(ask(BLUE), wait_s=0, persist=False)
    changes._switch.is_armed = False  # type: ignore[union-attr]  # it has fired, and failed like the helper
    with pytest.raises(RollbackIncomplete, match="Device or resource busy"):
        changes.setup(ask(RED), wait_s=0, persist=False)
    host.broken = lambda step: None
    change(changes, ask(RED))
    assert set(folder.running()) == {"red"}
    assert "blue" not in host.links


def test_a_change_that_waits_for_its_confirmation_keeps_others_out(host: Host, folder: Folder) -> None:
    changes = Transactions(folder)
    changes.setup(ask(BLUE), wait_s=30, persist=False)
    with pytest.raises(SetupFailed, match="another change is not finished"):
        changes.setup(ask(RED), wait_s=0, persist=False)
    assert "red" not in host.links


def test_the_end_of_a_change_leaves_the_next_one_s_switch_armed(host: Host, folder: Folder) -> None:
    changes = Transactions(folder)
    first = changes.setup(ask(BLUE), wait_s=30, persist=False)
    rollback.finish(folder)  # as for an agent that starts
    changes.setup(ask(RED), wait_s=30, persist=False)
    changes.undo(first)  # what the old agent had asked for comes late
    with pytest.raises(SetupFailed, match="another change is not finished"):
        changes.setup(ask(BLUE), wait_s=0, persist=False)


def test_an_agent_that_starts_finds_the_old_networks(host: Host, folder: Folder) -> None:
    before, changes = host.seen(), Transactions(folder)
    changes.setup(ask(BLUE), wait_s=30, persist=True)
    assert rollback.finish(folder) == "rolled back"
    assert (host.seen(), folder.running(), folder.persistent()) == (before, {}, {})
    change(changes, ask(RED))


def test_the_switch_waits_longer_than_the_steps_and_the_confirmation_take(host: Host, folder: Folder) -> None:
    Transactions(folder).setup(ask(BLUE), wait_s=30, persist=False)
    pending = folder.journal()
    assert pending is not None
    assert 30 + 10 <= pending.hold_s <= 30 + 30


def test_the_switch_waits_longer_for_more_steps(host: Host, folder: Folder) -> None:
    changes, waits = Transactions(folder), []
    for request in (ask(BLUE), ask(BLUE, RED)):
        made = changes.setup(request, wait_s=0, persist=False)
        pending = folder.journal()
        assert pending is not None
        waits.append((len(pending.steps), pending.hold_s))
        changes.undo(made)
    (few, soon), (many, later) = waits
    assert later - soon == pytest.approx((many - few) * transaction.STEP_S)


def test_a_change_that_takes_too_long_is_undone_before_the_switch_does_it(
    host: Host, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, clock = host.seen(), [0.0]
    monkeypatch.setattr(transaction, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slow(step: Step) -> None:
        pending = folder.journal()
        assert pending is not None
        assert clock[0] < pending.hold_s, "the switch is at it"
        clock[0] += 8.0 if clock[0] < 20 else 0.0

    host.broken = slow
    with pytest.raises(SetupFailed, match=r"longer than 2\d.* s"):
        Transactions(folder).setup(ask(BLUE), wait_s=0, persist=False)
    host.broken = lambda step: None
    assert host.seen() == before


def test_a_change_is_refused_while_another_process_does_not_let_go(
    host: Host, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = Transactions(folder)
    waits = changes.setup(ask(BLUE), wait_s=30, persist=False)
    before = host.seen()
    monkeypatch.setattr(transaction, "LOCK_S", 0.1)
    with folder.locked(0):
        with pytest.raises(SetupFailed, match="another change is not finished"):
            changes.setup(ask(RED), wait_s=0, persist=False)
        with pytest.raises(NotPending):
            changes.keep(waits)
        with pytest.raises(RollbackIncomplete, match="does not end"):
            changes.undo(waits)
    assert host.seen() == before


def booted(folder: Folder, *networks: Network) -> None:
    folder.write_persistent({net.name: net for net in networks}, {})


def test_a_helper_that_dies_while_it_restores_goes_on_with_the_rest(host: Host, folder: Folder) -> None:
    class Dies(BaseException):
        pass

    def second_kills(net: Network) -> None:
        if folder.running():
            raise Dies
        Transactions(folder).restore(net)

    booted(folder, BLUE, RED)
    with pytest.raises(Dies):
        Restorer(folder, second_kills).look()
    assert len(folder.running()) == 1
    assert Restorer(folder, Transactions(folder).restore).look() is False
    assert set(folder.running()) == {"blue", "red"}


class Late:
    """Restoring beside a NIC that comes when a test says so."""

    def __init__(self, host: Host, folder: Folder) -> None:
        self.seconds = 0.0
        self.tries = 0
        self._host, self._nic = host, host.links.pop("eth1")
        self._changes = Transactions(folder)
        self.restorer = Restorer(folder, self._restore, is_there=host.links.__contains__, now=lambda: self.seconds)

    def _restore(self, net: Network) -> None:
        self.tries += 1
        self._changes.restore(net)

    def plug(self) -> None:
        self._host.links["eth1"] = self._nic


def test_a_network_waits_for_its_nic_and_holds_up_no_other(
    host: Host, folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    booted(folder, RED, BLUE)
    late = Late(host, folder)
    assert late.restorer.look() is True
    assert set(folder.running()) == {"blue"}
    tries = late.tries
    assert late.restorer.look() is True
    assert late.tries == tries, "nothing has changed"
    late.seconds = RETRY_S
    late.restorer.look()
    assert sum("red was not restored" in line for line in caplog.messages) == 1, "the same reason is told once"
    late.plug()
    assert late.restorer.look() is False
    assert set(folder.running()) == {"blue", "red"}


def test_a_network_that_failed_for_another_reason_is_tried_again_later(host: Host, folder: Folder) -> None:
    booted(folder, BLUE)
    seconds = [0.0]
    tried: list[str] = []

    def restore(net: Network) -> None:
        tried.append(net.name)
        raise SetupFailed("beginning", "another change is not finished")

    restorer = Restorer(folder, restore, is_there=lambda nic: True, now=lambda: seconds[0])
    restorer.look()
    restorer.look()
    seconds[0] = RETRY_S
    restorer.look()
    assert len(tried) == 2


def test_what_waits_stays_persistent_when_another_change_is_kept(host: Host, folder: Folder) -> None:
    booted(folder, RED)
    late = Late(host, folder)
    late.restorer.look()
    change(Transactions(folder), ask(BLUE), persist=True)
    assert set(folder.persistent()) == {"blue", "red"}
    assert set(folder.waiting()) == {"red"}


def test_a_network_that_waits_may_be_removed(host: Host, folder: Folder) -> None:
    booted(folder, RED)
    late = Late(host, folder)
    late.restorer.look()
    change(Transactions(folder), ask(removed=("red",)), persist=True)
    assert (folder.persistent(), folder.waiting()) == ({}, {})


def test_a_network_that_waits_and_is_asked_for_anew_waits_no_more(host: Host, folder: Folder) -> None:
    booted(folder, RED)
    Late(host, folder).restorer.look()
    change(Transactions(folder), ask(replace(RED, nic="eth0")))
    change(Transactions(folder), ask(removed=("red",)))
    assert (folder.running(), folder.waiting()) == ({}, {})


def test_a_record_of_before_this_boot_restores_all(host: Host, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    change(Transactions(folder), ask(BLUE), persist=True)
    monkeypatch.setattr(journal, "boot_id", lambda: "another boot")
    assert (folder.running(), set(folder.waiting())) == ({}, {"blue"})


def test_a_state_that_can_t_be_read_is_no_change(host: Host, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def state() -> State:
        raise StepFailed("reading what the kernel has", "No buffer space available")

    monkeypatch.setattr(host, "state", state)
    with pytest.raises(SetupFailed, match="No buffer space available"):
        Transactions(folder).setup(ask(BLUE), wait_s=0, persist=False)
    assert folder.journal() is None
