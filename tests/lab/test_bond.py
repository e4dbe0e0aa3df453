# SPDX-License-Identifier: GPL-2.0-or-later
"""A VLAN on a bond of two NICs carries traffic, and goes on when a cable is pulled."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from contrib.lab import furnish
from contrib.lab.microvm.faults import link_cut
from contrib.lab.microvm.host import MicroHost

pytestmark = pytest.mark.cost(30)

MAKE = """
set -e
ip link add bond0 type bond mode $1 miimon 100
for nic in eth3 eth4; do ip link set $nic down; ip link set $nic master bond0; done
ip link set bond0 up
ip link add link bond0 name bond0.7 type vlan id 7
ip address add 10.39.7.$2/24 dev bond0.7
ip link set bond0.7 up
"""
UNMAKE = "ip link del bond0.7; ip link del bond0; ip link set eth3 up; ip link set eth4 up"
PING_MS = 200


@pytest.fixture
def bonded(hosts: list[MicroHost]) -> Iterator[list[MicroHost]]:
    for number, host in enumerate(hosts, 1):
        host.run(["sh", "-c", MAKE, "make", "active-backup", str(number)])
        host.run(["ip", "link", "set", "bond0", "type", "bond", "active_slave", "eth3"])
    yield hosts
    for host in hosts:
        host.run(["sh", "-c", UNMAKE])


def test_a_vlan_on_a_bond_survives_a_cut_cable(bonded: list[MicroHost]) -> None:
    first, second = bonded
    furnish.until("traffic", lambda: first.run(["ping", "-c1", "-W1", "10.39.7.2"], check=False).returncode == 0)
    log = "/var/log/lab-ping.log"
    pid = first.start_process(["ping", "-i", f"{PING_MS / 1000}", "-c", "40", "10.39.7.2"], log=log)
    time.sleep(2)  # what is measured is the gap in a stream that flows before and after
    # both sides lose that switch, as when it dies
    with link_cut(first, "eth3"), link_cut(second, "eth3"):
        first.control.wait(pid, timeout_s=30)
    answers = [int(number) for number in re.findall(rb"icmp_seq=(\d+)", first.get(log))]
    gap = max(later - earlier for earlier, later in pairwise(answers)) - 1
    print(f"{gap} of 40 pings lost in one gap, {gap * PING_MS} ms")
    assert answers[-1] >= 39
    assert gap * PING_MS <= 3000


def test_the_vlan_s_frames_carry_its_tag(bonded: list[MicroHost]) -> None:
    second = bonded[1]
    shown = second.run(["ip", "-d", "link", "show", "bond0.7"]).stdout.decode()
    assert "vlan protocol 802.1Q id 7" in shown
    before = _received(second)
    bonded[0].run(["ping", "-c3", "-i0.2", "10.39.7.2"])
    assert _received(second) >= before + 3


def _received(host: MicroHost) -> int:
    return int(host.get("/sys/class/net/bond0.7/statistics/rx_packets"))
