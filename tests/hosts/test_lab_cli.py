# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's command line, as a person uses it: a lab in one terminal, commands in another."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contrib.lab import labs, registry
from contrib.lab.spec import CHECKOUT

LAB = [sys.executable, "-m", "contrib.lab"]


def lab(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    argv = [*LAB, *arguments]
    return subprocess.run(argv, cwd=CHECKOUT, input=given, capture_output=True, text=True, timeout=60, check=False)


def start(*arguments: str) -> subprocess.Popen[str]:
    """``lab up`` with its terminal's Ctrl-C; returns once the lab is up."""
    process = subprocess.Popen(
        [*LAB, "up", *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C removes it all" in line:
            return process
    raise AssertionError(f"lab up ended with {process.wait()}")


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """The name of a host of a lab that another process holds."""
    process = start("--hosts", "2")
    try:
        yield _hosts_of(process)[0]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


def _hosts_of(process: subprocess.Popen[str]) -> list[str]:
    held = {record.folder for record in registry.records() if record.keeper == process.pid and record.kind == "folder"}
    (description,) = (json.loads(Path(folder, labs.DESCRIPTION).read_text()) for folder in held)
    return sorted(description["hosts"])


def test_status_shows_hosts_agents_networks_and_storage(host: str) -> None:
    shown = lab("status").stdout
    row = next(line for line in shown.splitlines() if host in line)
    assert row.split()[1:4] == [host, "namespace", "up"]
    assert "0 VMs, no pool" in row
    assert "10.37.0.11/24" in row
    assert "networks management, migration, storage" in shown
    assert "/srv/shared/domain.img" in shown


def test_run_passes_output_and_exit_code_on(host: str) -> None:
    done = lab("run", host, "--", "sh", "-c", "hostname; echo wrong >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{host}\n", "wrong\n")


def test_run_passes_its_input_on(host: str) -> None:
    assert lab("run", host, "--", "tr", "a-z", "A-Z", given="typed").stdout == "TYPED"


def test_a_piped_shell_ends_with_its_input_and_its_code(host: str) -> None:
    done = lab("ssh", host, given="hostname\nexit 3\n")
    assert (done.returncode, done.stdout) == (3, f"{host}\n")


def test_a_host_has_the_field_s_command(host: str) -> None:
    assert lab("run", host, "--", "vdsm-client", "Host", "ping2").stdout == "true\n"


def test_run_kills_at_the_deadline(host: str) -> None:
    done = lab("run", host, "--timeout", "1", "--", "sh", "-c", "echo begun; echo wrong >&2; exec sleep 10")
    assert (done.returncode, done.stdout) == (1, "begun\n")
    assert done.stderr == "wrong\nkilled after 1 s: sh -c echo begun; echo wrong >&2; exec sleep 10\n"


def test_an_unknown_host_is_refused_with_the_names_there_are(host: str) -> None:
    done = lab("run", "nobody", "--", "true")
    assert done.returncode == 1
    assert "no host is called nobody" in done.stderr
    assert host in done.stderr


def test_a_fault_holds_and_is_restored(host: str) -> None:
    holding = subprocess.Popen(
        [*LAB, "fault", "link-cut", host, "eth0"], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert holding.stdout is not None
    assert "holds until Ctrl-C" in holding.stdout.readline()
    assert lab("run", host, "--", "cat", "/sys/class/net/eth0/carrier").stdout == "0\n"
    holding.send_signal(signal.SIGTERM)
    assert "restored" in holding.communicate(timeout=10)[0]
    assert lab("run", host, "--", "cat", "/sys/class/net/eth0/carrier").stdout == "1\n"


def test_a_killed_agent_is_the_one_that_ran_and_one_comes_back(host: str) -> None:
    agents = ["sh", "-c", "grep -lz '^serve$' /proc/[0-9]*/cmdline"]
    before = lab("run", host, "--", *agents).stdout
    assert before.count("\n") == 1
    holding = subprocess.Popen(
        [*LAB, "fault", "kill", host, "agent"], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert holding.stdout is not None
    assert "holds until Ctrl-C" in holding.stdout.readline()
    assert lab("run", host, "--", *agents).stdout == ""
    none = lab("fault", "kill", host, "agent")
    assert (none.returncode, none.stderr.count("no agent runs there")) == (1, 1)
    holding.send_signal(signal.SIGTERM)
    assert "restored" in holding.communicate(timeout=30)[0]
    after = lab("run", host, "--", *agents).stdout
    assert after.count("\n") == 1 and after != before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["link-cut"], "takes HOST and NIC"),
        (["link-cut", "eth9"], "there is no NIC eth9: there are eth0, eth1, eth2"),
        (["loss", "eth0", "500"], "percent: expected a whole number from 0 to 100, not 500"),
        (["loss", "eth0", "many"], "not many"),
        (["delay", "eth0", "abc"], "milliseconds: expected a whole number"),
        (["drop-peer", "zzz"], "'zzz' does not appear to be an IPv4 or IPv6 address"),
        (["kill", "bogus"], "there is no daemon bogus: there are agent, root, spm"),
        (["full", "/nofolder"], "there is no folder /nofolder"),
        (["freeze", "/nofolder"], "there is no mount point /nofolder: there are /"),
        (["clock", "60"], "there is none for namespace hosts"),
        (["nothing"], "no fault nothing: there are clock, delay"),
    ],
)
def test_a_wrong_fault_is_refused_with_what_is_right(host: str, arguments: list[str], said: str) -> None:
    done = lab("fault", arguments[0], host, *arguments[1:])
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_logs_shows_what_the_agent_wrote(host: str) -> None:
    assert "the agent is ready" in lab("logs", host).stdout


def test_a_lab_left_by_a_killed_run_is_removed() -> None:
    process = start("--hosts", "1", "--no-agents")
    left = _hosts_of(process)
    process.kill()
    process.wait()
    lab("down")
    assert not [record for record in registry.records() if record.name in left or record.keeper == process.pid]
