# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts of a cluster: apart from each other, on common networks, with one file system, and gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contrib.lab import furnish, kernel_calls
from contrib.lab.cluster import PKI, SHARED_IMAGE, Cluster, address
from contrib.lab.host import PrivateHost
from contrib.lab.spec import CHECKOUT

STARTER = """
import json, sys, time
from contrib.lab.cluster import Cluster
with Cluster(hosts=2) as cluster:
    for host in cluster.hosts:
        host.run(["sh", "-c", "mkdir /mnt/shared; mount -o loop /srv/shared/domain.img /mnt/shared"])
    print(json.dumps({"hosts": [host.pid for host in cluster.hosts], "folder": str(cluster.folder)}), flush=True)
    time.sleep(600)
"""
FREEZING_STARTER = STARTER.replace(
    "    time.sleep(600)",
    """
    from contrib.lab.faults import storage_hung
    with storage_hung(cluster.hosts[0], "/mnt/shared"):
        print("frozen", flush=True)
        time.sleep(600)
""",
)


def test_each_host_has_an_identity_of_its_own(cluster: Cluster) -> None:
    ids = {host.path("/etc/vdsm/vdsm.id").read_text() for host in cluster.hosts}
    names = {host.run(["hostname"]).stdout for host in cluster.hosts}
    spaces = {os.readlink(f"/proc/{host.pid}/ns/{kind}") for host in cluster.hosts for kind in ("pid", "net", "mnt")}
    assert (len(ids), len(names), len(spaces)) == (3, 3, 9)


def test_hosts_reach_each_other_by_name_and_on_every_network(cluster: Cluster) -> None:
    for target in ("host3", address("migration", 3), address("storage", 3)):
        cluster.hosts[0].run(["busybox", "ping", "-c", "1", "-W", "3", target])


def test_the_machine_sees_no_network_of_the_cluster(cluster: Cluster) -> None:
    shown = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True).stdout
    assert "10.37." not in shown
    assert "br-management" not in shown


def test_what_one_host_writes_to_the_shared_file_system_another_reads(
    hosts: list[PrivateHost], shared_folder: str
) -> None:
    block = f"{shared_folder}/block"
    hosts[0].run(["dd", f"of={block}", "bs=4k", "oflag=direct"], stdin=b"one file system".ljust(4096))
    assert hosts[1].run(["dd", f"if={block}", "bs=4k", "iflag=direct"]).stdout.startswith(b"one file system")
    # one device, or two page caches would destroy the file system
    assert len({host.run(["findmnt", "-n", "-o", "SOURCE", shared_folder]).stdout for host in hosts}) == 1


def test_hosts_that_mount_at_once_have_one_file_system(hosts: list[PrivateHost]) -> None:
    mount = ["sh", "-c", f"mkdir -p /mnt/once; mount -o loop {SHARED_IMAGE} /mnt/once; stat -c %d /mnt/once"]
    for _ in range(20):
        with ThreadPoolExecutor(len(hosts)) as threads:
            devices = {done.stdout for done in threads.map(lambda host: host.run(mount), hosts)}
            list(threads.map(lambda host: host.run(["umount", "/mnt/once"]), hosts))
        assert len(devices) == 1


def test_each_host_has_a_certificate_of_the_cluster_s_authority(cluster: Cluster) -> None:
    for number, host in enumerate(cluster.hosts, 1):
        verify = ["openssl", "verify", "-purpose", "sslserver", "-verify_ip", address("management", number)]
        host.run([*verify, "-CAfile", f"{PKI}/certs/cacert.pem", f"{PKI}/certs/vdsmcert.pem"])
        assert host.run(["cat", f"{PKI}/keys/vdsmkey.pem"], user="vdsm").stdout.startswith(b"-----BEGIN PRIVATE KEY")


def test_a_host_that_lost_its_power_comes_back_with_its_identity(cluster: Cluster) -> None:
    host = cluster.hosts[2]
    before = host.spec.host_id
    host.stop()
    assert cluster.hosts[0].run(["busybox", "ping", "-c", "1", "-W", "1", "host3"], check=False).returncode != 0
    cluster.start_host(host)
    assert host.path("/etc/vdsm/vdsm.id").read_text().strip() == before
    cluster.hosts[0].run(["busybox", "ping", "-c", "1", "-W", "3", "host3"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_however_the_starter_ends(number: signal.Signals) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert starter.stdout is not None
    up = json.loads(starter.stdout.readline())
    image = Path(up["folder"], "shared", Path(SHARED_IMAGE).name).stat()
    assert kernel_calls.loops_backed_by(image.st_dev, image.st_ino)
    starter.send_signal(number)
    starter.wait(timeout=20)
    furnish.until("the hosts' end", lambda: not any(os.path.exists(f"/proc/{pid}") for pid in up["hosts"]))
    if number != signal.SIGINT:
        # the folder has no process left that could remove it: that is what `down` is for
        subprocess.run([sys.executable, "-m", "contrib.lab", "down"], cwd=CHECKOUT, check=True, capture_output=True)
    furnish.until("no loop device", lambda: not kernel_calls.loops_backed_by(image.st_dev, image.st_ino))
    assert not os.path.exists(up["folder"])


def test_a_killed_starter_leaves_no_frozen_file_system() -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", FREEZING_STARTER], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    up = json.loads(starter.stdout.readline())
    assert starter.stdout.readline() == "frozen\n"
    image = Path(up["folder"], "shared", Path(SHARED_IMAGE).name).stat()
    starter.kill()
    starter.wait(timeout=20)
    furnish.until("no loop device", lambda: not kernel_calls.loops_backed_by(image.st_dev, image.st_ino))
    subprocess.run([sys.executable, "-m", "contrib.lab", "down"], cwd=CHECKOUT, check=True, capture_output=True)
    assert not os.path.exists(up["folder"])
