# SPDX-License-Identifier: GPL-2.0-or-later
"""The dead man's switch as a process: each of its ends, in a network namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from network import transaction
from network.errors import SetupFailed
from network.journal import Folder, Journal, Phase, boot_id
from network.model import Network
from network.plan import Step
from network.transaction import Switch

BLUE = Network("blue", "")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network namespace")

HELPER = """
    import sys, time
    from network.journal import Folder
    from network.kernel import opened
    from network.plan import Step
    from network.transaction import Switch

    path, end = sys.argv[1:]
    folder = Folder(path)
    made = Step("bridge_add", {"name": "blue", "mac": "", "mtu": 1500, "stp": False})
    switch = Switch(folder, folder.journal().id)
    with opened() as kernel:
        kernel.do(made)
    print("made", flush=True)
    if end == "disarmed":
        switch.disarm()
        print("disarmed", flush=True)
    time.sleep(60)
"""
"""A root helper: arms the switch, makes a bridge, and hangs."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "network"))


def pending(folder: Folder, *, hold_s: float, phase: Phase = Phase.APPLYING) -> None:
    undo = (Step("link_del", {"name": "blue"}),)
    folder.write_journal(Journal("j1", boot_id(), hold_s, phase, (), undo, {"blue": BLUE}, persist=True))


class Helper:
    def __init__(self, folder: Folder, end: str) -> None:
        script = textwrap.dedent(HELPER)
        argv = ["unshare", "--net", sys.executable, "-c", script, folder.path, end]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.says("made")

    def says(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{word}\n"

    def devices(self) -> set[str]:
        argv = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", "ip", "-j", "link"]
        return {link["ifname"] for link in json.loads(subprocess.check_output(argv))}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def until_gone(folder: Folder) -> float:
    started = time.monotonic()
    while folder.journal() is not None:
        assert time.monotonic() - started < 20
        time.sleep(0.01)
    return time.monotonic() - started


def test_a_change_that_nobody_ends_in_time_is_rolled_back(folder: Folder) -> None:
    pending(folder, hold_s=1.0)
    helper = Helper(folder, "hangs")
    try:
        assert "blue" in helper.devices()
        until_gone(folder)
        assert "blue" not in helper.devices()
        assert folder.running() == {}
    finally:
        helper.close()


def test_a_change_whose_helper_is_killed_is_rolled_back_at_once(folder: Folder) -> None:
    pending(folder, hold_s=60.0)
    helper = Helper(folder, "hangs")
    net = os.open(f"/proc/{helper.process.pid}/ns/net", os.O_RDONLY)
    helper.close()
    try:
        assert until_gone(folder) < 10
        argv = ["nsenter", f"--net=/proc/self/fd/{net}", "ip", "-j", "link"]
        left = json.loads(subprocess.check_output(argv, pass_fds=[net]))
        assert "blue" not in {link["ifname"] for link in left}
    finally:
        os.close(net)


def test_a_disarmed_switch_undoes_nothing(folder: Folder) -> None:
    pending(folder, hold_s=60.0)
    helper = Helper(folder, "disarmed")
    try:
        helper.says("disarmed")
        children = Path(f"/proc/{helper.process.pid}/task/{helper.process.pid}/children").read_text()
        assert children == "", "it has ended"
        assert "blue" in helper.devices()
        assert folder.journal() is not None
    finally:
        helper.close()


def test_a_change_that_was_confirmed_is_kept_although_its_helper_died(folder: Folder) -> None:
    pending(folder, hold_s=60.0)
    helper = Helper(folder, "hangs")
    pending(folder, hold_s=60.0, phase=Phase.COMMITTING)
    helper.close()
    until_gone(folder)
    assert (set(folder.running()), set(folder.persistent())) == ({"blue"}, {"blue"})


def stand_in(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program in the place of the switch's."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_nothing_is_changed_with_a_switch_that_does_not_get_ready(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60", monkeypatch)
    monkeypatch.setattr(transaction, "ARM_S", 0.5)
    with pytest.raises(SetupFailed, match=r"not ready after 0\.5 s"):
        Switch(folder, "j1")
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_switch_that_does_not_end_holds_nobody_up(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, "echo armed; exec sleep 60", monkeypatch)
    monkeypatch.setattr(transaction, "SWITCH_END_S", 0.1)
    switch = Switch(folder, "j1")
    assert switch.is_armed
    started = time.monotonic()
    switch.disarm()
    assert time.monotonic() - started < 10
    assert not switch.is_armed


def test_a_switch_that_can_t_be_killed_holds_nobody_up(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, "echo armed; exec sleep 60", monkeypatch)
    monkeypatch.setattr(transaction, "SWITCH_END_S", 0.1)
    monkeypatch.setattr(transaction, "KILLED_S", 0.1)
    switch = Switch(folder, "j1")
    kill = switch._process.kill
    monkeypatch.setattr(switch._process, "kill", lambda: None)
    switch.disarm()
    assert switch.is_armed
    kill()
    switch._process.wait()
