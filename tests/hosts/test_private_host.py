# SPDX-License-Identifier: GPL-2.0-or-later
"""The test hosts themselves: they are real hosts, and nothing of them stays on the machine."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contrib.lab import groups, kernel_calls, registry
from contrib.lab.control import HostFailed
from contrib.lab.host import PrivateHost

STARTER = """
from contrib.lab.host import PrivateHost
import signal, sys, time
# who runs the tests in the background ignores it, and so would its children
signal.signal(signal.SIGINT, signal.default_int_handler)
host = PrivateHost(sys.argv[1]).start()
host.run(["mount", "-o", "loop", "/srv/posixfs.img", "/mnt"])
host.run(["mkdir", "/sys/fs/cgroup/memory/machine"], check=False)
print(host.pid, host.path("/srv").stat().st_dev, flush=True)
time.sleep(60)
"""


def _machine() -> dict[str, object]:
    """What the machine shows of its hosts."""
    return {
        "cgroups": groups.named(f"own-{os.getpid()}-"),
        "mounts": Path("/proc/self/mounts").read_text(),
        "nics": sorted(os.listdir("/sys/class/net")),
        "passwd": Path("/etc/passwd").read_text(),
        "folders": [path for path in ("/rhev", "/etc/vdsm", "/run/vdsm", "/var/lib/vdsm") if os.path.exists(path)],
    }


def _machine_is(expected: dict[str, object], timeout_s: float = 10) -> None:
    limit = time.monotonic() + timeout_s
    while (seen := _machine()) != expected and time.monotonic() < limit:
        time.sleep(0.05)
    assert seen == expected


def test_host_has_the_accounts_of_an_installed_host(host: PrivateHost) -> None:
    groups_of_vdsm = host.run(["id", "-Gn", "vdsm"]).stdout.decode().split()
    assert host.run(["id", "-u", "vdsm"]).stdout.strip() == b"36"
    assert {"vdsm", "kvm", "sanlock", "libvirt"} <= set(groups_of_vdsm)
    assert b"36" in host.run(["id", "-G", "sanlock"]).stdout.split()


def test_agents_user_reaches_libvirt_and_sanlock(host: PrivateHost) -> None:
    assert b"running" not in host.run(["virsh", "-c", "qemu:///system", "list"], user="vdsm").stdout
    python = "/usr/lib/vdsm/.venv/bin/python"
    assert host.run([python, "-c", "import sanlock; print(sanlock.get_lockspaces())"], user="vdsm").stdout == b"[]\n"


def test_libvirt_has_the_hosts_own_id(host: PrivateHost) -> None:
    assert host.spec.host_id.encode() in host.run(["virsh", "-c", "qemu:///system", "capabilities"]).stdout


def test_cable_has_two_ends(host: PrivateHost) -> None:
    gateway = host.spec.gateway.split("/")[0]
    address = host.spec.address.split("/")[0]
    # busybox' ping: iputils is no dependency of ours
    host.run(["busybox", "ping", "-c", "1", "-W", "2", gateway])
    host.run_outside(["busybox", "ping", "-c", "1", "-W", "2", address])


def test_checkout_is_read_only_inside(host: PrivateHost) -> None:
    with pytest.raises(HostFailed, match="Read-only"):
        host.run(["touch", "/usr/lib/vdsm/x"])


def test_orphans_are_reaped(host: PrivateHost) -> None:
    host.run(["sh", "-c", "(sleep 0.05 &)"])
    time.sleep(0.2)
    states = host.run(["ps", "-eo", "stat="]).stdout.split()
    assert not [state for state in states if state.startswith(b"Z")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_host_ends_with_its_starter(number: signal.Signals) -> None:
    before = _machine()
    name = f"own-{os.getpid()}-{int(number)}"
    starter = subprocess.Popen([sys.executable, "-c", STARTER, name], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid, images = map(int, starter.stdout.readline().split())
    assert len(kernel_calls.loops_backed_by(images)) == 2
    starter.send_signal(number)
    starter.communicate()
    _machine_is(before)
    assert kernel_calls.loops_backed_by(images) == []
    assert not os.path.exists(f"/proc/{pid}")
    assert name not in [record.name for record in registry.records()]


def test_host_whose_keeper_was_killed_is_swept() -> None:
    before = _machine()
    name = f"own-{os.getpid()}-keeper"
    starter = subprocess.Popen([sys.executable, "-c", STARTER, name], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    images = int(starter.stdout.readline().split()[1])
    keeper = next(record.keeper for record in registry.records() if record.name == name)
    ended = os.pidfd_open(keeper)
    os.kill(keeper, signal.SIGKILL)
    select.select([ended], [], [], 10)
    os.close(ended)
    starter.kill()
    starter.communicate()
    assert name in registry.sweep(also_living=False)
    _machine_is(before)
    assert kernel_calls.loops_backed_by(images) == []


def test_failed_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    before = _machine()
    missing = str(tmp_path / "missing")
    with pytest.raises(HostFailed, match="missing"):
        PrivateHost(f"own-{os.getpid()}-bad", shared={"/data": missing}).start()
    _machine_is(before)
