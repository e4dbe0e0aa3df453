# SPDX-License-Identifier: GPL-2.0-or-later
"""What every test of the lab relies on: commands with deadlines, files, faults that end, nothing left."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contrib.lab import furnish, registry
from contrib.lab.control import HostFailed
from contrib.lab.faults import file_system_full, killed, peer_dropped
from contrib.lab.microvm import faults
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.san import San, address
from contrib.lab.spec import CHECKOUT

pytestmark = pytest.mark.cost(5)


def test_a_command_gives_output_and_exit_code(hosts: list[MicroHost]) -> None:
    done = hosts[0].run(["sh", "-c", "cat; echo wrong >&2; exit 3"], stdin=b"given", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"given", b"wrong\n")


def test_a_failing_command_says_why(hosts: list[MicroHost]) -> None:
    with pytest.raises(HostFailed, match=r"ls /none ended with 2: .*No such file"):
        hosts[0].run(["ls", "/none"])


def test_a_command_is_killed_at_its_deadline_with_its_children(hosts: list[MicroHost]) -> None:
    with pytest.raises(TimeoutError):
        hosts[0].run(["sh", "-c", "sleep 4711 & sleep 4711"], timeout_s=0.5)
    assert hosts[0].run(["pgrep", "-f", "sleep 4711"], check=False).returncode == 1


def test_a_large_file_goes_in_and_out(hosts: list[MicroHost]) -> None:
    content = bytes(range(256)) * (16 << 10)
    hosts[0].put("/tmp/large", content, mode=0o600)
    assert hosts[0].get("/tmp/large") == content
    assert hosts[0].run(["stat", "-c", "%a", "/tmp/large"]).stdout == b"600\n"


def test_a_command_as_vdsm_has_its_number(hosts: list[MicroHost]) -> None:
    assert hosts[0].run(["id", "-u"], user="vdsm").stdout == b"36\n"


def _lab(*words: str, **more: object) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "contrib.lab", *words]
    return subprocess.Popen(argv, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more)  # type: ignore[call-overload,no-any-return]


def _on_a_terminal(*words: str) -> tuple[subprocess.Popen[bytes], int]:
    """The lab's command with a terminal as its input; what is written to the descriptor is typed there."""
    typing, typed = pty.openpty()
    argv = [sys.executable, "-m", "contrib.lab", *words]
    process = subprocess.Popen(argv, cwd=CHECKOUT, stdin=typed, stdout=subprocess.PIPE)
    os.close(typed)
    return process, typing


def test_a_shell_has_a_terminal_and_its_code(hosts: list[MicroHost]) -> None:
    shell, typing = _on_a_terminal("ssh", hosts[0].spec.name)
    os.write(typing, b"tty; echo $((6 * 7)) at $(hostname)\nexit 3\n")
    text = shell.communicate(timeout=60)[0].decode()
    os.close(typing)
    assert shell.returncode == 3
    assert "/dev/pts/" in text
    assert f"42 at {hosts[0].run(['hostname']).stdout.decode().strip()}" in text


def test_a_shell_ends_with_who_typed(hosts: list[MicroHost]) -> None:
    mark = "4711.4711"
    shell, typing = _on_a_terminal("ssh", hosts[0].spec.name)
    os.write(typing, f"sleep {mark}\n".encode())
    furnish.until("the shell's command", lambda: _running(hosts[0], mark))
    shell.kill()
    shell.communicate()
    os.close(typing)
    furnish.until("the end of the shell's command", lambda: not _running(hosts[0], mark))


def _running(host: MicroHost, mark: str) -> bool:
    return host.run(["pgrep", "-f", f"sleep {mark}"], check=False).returncode == 0


def _lab(*words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "contrib.lab", *words]
    return subprocess.run(argv, cwd=CHECKOUT, input=given, capture_output=True, timeout=60, check=False)


def test_a_piped_shell_ends_with_its_input_and_its_code(hosts: list[MicroHost]) -> None:
    name = hosts[0].spec.name
    assert _lab("ssh", name, given=b"command -v vdsm\n").stdout == b"/usr/local/bin/vdsm\n"
    lines = b"".join(b"echo %d\n" % number for number in range(2_000))
    done = _lab("ssh", name, given=lines + b"exit 4\n")
    assert done.returncode == 4
    assert done.stdout.split()[-1] == b"1999"


def test_run_passes_its_input_on(hosts: list[MicroHost]) -> None:
    assert _lab("run", hosts[0].spec.name, "--", "tr", "a-z", "A-Z", given=b"typed").stdout == b"TYPED"


def test_a_log_is_followed_until_nobody_reads(hosts: list[MicroHost]) -> None:
    log = "/var/log/vdsm/agent.log"
    hosts[0].put(log, b"first\n")
    argv = [sys.executable, "-m", "contrib.lab", "logs", hosts[0].spec.name, "-f"]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == b"first\n"
        hosts[0].run(["sh", "-c", f"echo second >> {log}"])
        assert following.stdout.readline() == b"second\n"
        following.terminate()
        following.wait(timeout=20)
    tail = ["pgrep", "-f", f"tail .*{log}"]
    furnish.until("the end of tail", lambda: hosts[0].run(tail, check=False).returncode == 1)


def test_a_cut_link_has_no_carrier_until_it_is_restored(san: San) -> None:
    host = san.hosts[0]
    with faults.link_cut(host, "eth1"):
        assert not _reaches(host, address("san-a", 2))
        assert host.get("/sys/class/net/eth1/carrier") == b"0\n"
    assert _reaches(host, address("san-a", 2))


def test_a_dropped_peer_is_silent_and_others_are_not(san: San) -> None:
    host = san.hosts[0]
    with peer_dropped(host, address("san-a", 2)):
        assert not _reaches(host, address("san-a", 2))
        assert _reaches(host, address("san-a", 100))
    assert _reaches(host, address("san-a", 2))


def test_delayed_packets_take_longer(san: San) -> None:
    host = san.hosts[0]
    with faults.packets_delayed(host, "eth1", 300):
        assert _round_trip_ms(host, address("san-a", 2)) > 300
    assert _round_trip_ms(host, address("san-a", 2)) < 300


def test_lost_packets_are_lost_at_the_rate(san: San) -> None:
    host = san.hosts[0]
    with faults.packets_lost(host, "eth1", 50):
        told = host.run(["ping", "-q", "-i0.02", "-c100", "-W1", address("san-a", 2)], check=False).stdout.decode()
    received = int(told.split(" received")[0].split()[-1])
    assert 20 <= received <= 80


def test_a_paused_host_answers_nothing_and_goes_on(san: San) -> None:
    host = san.hosts[1]
    with faults.paused(host):
        assert not _reaches(san.hosts[0], address("san-a", 2))
    host.run(["true"])


def test_a_full_file_system_takes_nothing_and_has_room_again(hosts: list[MicroHost]) -> None:
    host = hosts[0]
    host.run(["sh", "-c", "mkdir /mnt/small && mount -t tmpfs -o size=8m small /mnt/small"])
    try:
        with file_system_full(host, "/mnt/small"):
            assert host.run(["dd", "if=/dev/zero", "of=/mnt/small/a", "bs=64k", "count=1"], check=False).returncode == 1
        host.run(["dd", "if=/dev/zero", "of=/mnt/small/b", "bs=64k", "count=1"])
    finally:
        host.run(["umount", "/mnt/small"])


@pytest.mark.parametrize("daemon", ["libvirtd", "sanlock"])
def test_a_killed_daemon_is_gone_and_comes_back(hosts: list[MicroHost], daemon: str) -> None:
    before = hosts[0].run(["pidof", daemon]).stdout
    with killed(hosts[0], daemon):
        assert hosts[0].run(["pidof", daemon], check=False).returncode == 1
    assert hosts[0].run(["pidof", daemon]).stdout not in (b"", before)


def test_a_shifted_clock_comes_back(hosts: list[MicroHost]) -> None:
    host = hosts[0]
    with faults.clock_shifted(host, -3600):
        assert abs(_clock(host) - (time.time() - 3600)) < 60
    assert abs(_clock(host) - time.time()) < 60


def _clock(host: MicroHost) -> float:
    return float(host.run(["date", "+%s"]).stdout)


def _reaches(host: MicroHost, peer: str) -> bool:
    return host.run(["ping", "-c2", "-i0.2", "-W1", peer], check=False).returncode == 0


def _round_trip_ms(host: MicroHost, peer: str) -> float:
    """Of the second ping: the first one waits for the address to be resolved."""
    told = host.run(["ping", "-c2", "-i0.2", "-W2", peer]).stdout.decode()
    return float(told.split("icmp_seq=2")[1].split("time=")[1].split()[0])


STARTER = """
import json, time
from contrib.lab.microvm.host import MicroHost
with MicroHost(hypervisor=False, memory_mib=512, cpus=1) as host:
    print(json.dumps({"pid": host.pid, "folder": host.spec.folder}), flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_when_the_starter_is_killed() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    up = json.loads(starter.stdout.readline())
    starter.kill()
    starter.wait()
    furnish.until("QEMU's end", lambda: not Path(f"/proc/{up['pid']}").exists())
    furnish.until("the keeper's end", lambda: not any(r.host == up["pid"] for r in registry.records()))
    subprocess.run([sys.executable, "-m", "contrib.lab", "down"], cwd=CHECKOUT, check=True, capture_output=True)
    assert not Path(up["folder"]).exists()
