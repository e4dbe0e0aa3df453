# SPDX-License-Identifier: GPL-2.0-or-later
"""Every fault of a cluster is seen where it hurts, and over when it is over."""

from __future__ import annotations

import time

import pytest

from contrib.lab import faults, furnish
from contrib.lab.cluster import Cluster, address
from contrib.lab.host import PrivateHost

PEER = "host2"
FETCH = r"""
exec 3<>$1
printf 'GET /large HTTP/1.0\r\n\r\n' >&3
sed '1,/^\r$/d' <&3 | md5sum
"""


def test_a_cut_link_has_no_carrier_until_it_is_restored(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    with faults.link_cut(cluster, host, "eth0"):
        assert not _reaches(host, PEER)
        assert host.path("/sys/class/net/eth0/carrier").read_text() == "0\n"
    furnish.until("the link", lambda: _reaches(host, PEER))


def test_a_link_is_restored_when_the_block_fails(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    with pytest.raises(ZeroDivisionError), faults.link_cut(cluster, host, "eth0"):
        raise ZeroDivisionError
    furnish.until("the link", lambda: _reaches(host, PEER))


def test_a_dropped_peer_is_silent_and_others_are_not(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    with faults.peer_dropped(host, address("management", 2)):
        assert not _reaches(host, PEER)
        assert _reaches(host, "host3")
    assert _reaches(host, PEER)


def test_lost_packets_are_lost_at_the_rate(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    with faults.packets_lost(host, "eth0", 50):
        answered = sum(_reaches(host, PEER) for _ in range(20))
    assert 3 <= answered <= 17
    assert all(_reaches(host, PEER) for _ in range(5))


def test_delayed_packets_take_longer_and_tcp_still_works(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    with faults.packets_delayed(cluster, host, "eth0", 200):
        assert _round_trip_ms(host) > 200
        cluster.hosts[1].run(["dd", "if=/dev/urandom", "of=/srv/large", "bs=64k", "count=16"])
        cluster.hosts[1].start_process(["busybox", "httpd", "-f", "-p", "8000", "-h", "/srv"], log="/var/log/httpd.log")
        fetched = host.run(["bash", "-c", FETCH, "fetch", f"/dev/tcp/{address('management', 2)}/8000"], timeout_s=30)
        assert fetched.stdout.split()[0] == cluster.hosts[1].run(["md5sum", "/srv/large"]).stdout.split()[0]
    assert _round_trip_ms(host) < 100


def test_hung_storage_takes_no_write_on_any_host_until_it_is_over(hosts: list[PrivateHost], shared_folder: str) -> None:
    write = ["dd", "if=/dev/zero", f"of={shared_folder}/late", "bs=4k", "count=1", "conv=fsync"]
    with faults.storage_hung(hosts[0], shared_folder):
        writer = hosts[1].start_process(write, log="/var/log/writer.log")
        with pytest.raises(TimeoutError):
            hosts[1].control.wait(writer, timeout_s=2)
    assert hosts[1].control.wait(writer, timeout_s=10) == 0


def test_a_full_file_system_takes_nothing_and_has_room_again(host: PrivateHost) -> None:
    host.run(["sh", "-c", "mkdir /mnt/small && mount -t tmpfs -o size=8m small /mnt/small"])
    write = ["dd", "if=/dev/zero", "of=/mnt/small/a", "bs=64k", "count=1"]
    with faults.file_system_full(host, "/mnt/small"):
        assert b"No space left" in host.run(write, check=False).stderr
    host.run(write)


@pytest.mark.parametrize("daemon", ["libvirtd", "virtlogd", "sanlock"])
def test_a_killed_daemon_is_gone_and_comes_back(host: PrivateHost, daemon: str) -> None:
    before = host.run(["pidof", daemon]).stdout
    with faults.killed(host, daemon):
        assert host.run(["pidof", daemon], check=False).returncode == 1
    assert host.run(["pidof", daemon]).stdout not in (b"", before)


def test_a_killed_agent_comes_back(agent_host: PrivateHost) -> None:
    with faults.killed(agent_host, "agent"):
        assert not agent_host.agent_lives
    assert agent_host.agent_lives


def test_an_unknown_daemon_is_refused_by_name(host: PrivateHost) -> None:
    with pytest.raises(ValueError, match="no daemon systemd: there are agent, root, spm, virtlogd"):
        faults.killed(host, "systemd").__enter__()


def test_a_paused_host_stands_still_and_goes_on(cluster: Cluster) -> None:
    host = cluster.hosts[1]
    host.start_process(["sh", "-c", "while :; do echo .; sleep 0.05; done"], log="/srv/ticks")
    with faults.paused(host):
        before = host.path("/srv/ticks").stat().st_size
        time.sleep(0.5)  # what is asserted is that nothing happens in it
        assert host.path("/srv/ticks").stat().st_size <= before + 2
    host.run(["sh", "-c", "n=$(wc -c < /srv/ticks); while [ $(wc -c < /srv/ticks) -le $n ]; do sleep 0.05; done"])


def test_a_paused_host_can_be_ended() -> None:
    with PrivateHost() as host, faults.paused(host):
        began = time.monotonic()
        host.stop()
        assert time.monotonic() - began < 5


def _reaches(host: PrivateHost, peer: str) -> bool:
    return host.run(["busybox", "ping", "-c", "1", "-W", "1", peer], check=False).returncode == 0


def _round_trip_ms(host: PrivateHost) -> float:
    """Of the second ping: the first one waits for the address to be resolved."""
    told = host.run(["busybox", "ping", "-c", "2", "-W", "2", PEER]).stdout.decode()
    return float(told.split("seq=1")[1].split("time=")[1].split()[0])
