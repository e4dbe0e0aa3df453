# SPDX-License-Identifier: GPL-2.0-or-later
"""iSCSI with CHAP, several paths, and what their loss does to I/O."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from contrib.lab import furnish
from contrib.lab.control import HostFailed
from contrib.lab.microvm import initiator, storage_faults, storage_server
from contrib.lab.microvm.faults import link_cut
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.san import SERVER, San, address
from tests.lab.conftest import Iscsi

pytestmark = pytest.mark.cost(30)

WRITE_S = 60


def test_login_with_chap_shows_the_luns(hosts: list[MicroHost], iscsi: Iscsi) -> None:
    initiator.log_in(hosts[0], iscsi.portals[0], iscsi.chap, mutual=True)
    for name in iscsi.luns:
        device = f"/dev/disk/by-id/wwn-0x{storage_server.wwid(name)[1:]}"
        assert int(hosts[0].run(["blockdev", "--getsize64", device]).stdout) == 1 << 30


def test_a_wrong_secret_is_refused(hosts: list[MicroHost], iscsi: Iscsi) -> None:
    with pytest.raises(HostFailed, match="authorization failure"):
        initiator.log_in(hosts[0], iscsi.portals[0], replace(iscsi.chap, password="another-secret"))


def test_io_goes_on_when_one_of_two_paths_is_cut(hosts: list[MicroHost], iscsi: Iscsi) -> None:
    host = hosts[0]
    for portal in iscsi.portals:
        initiator.log_in(host, portal, iscsi.chap)
    daemon = initiator.start_multipath(host)
    wwid = storage_server.wwid("gold")
    try:
        device = f"/dev/mapper/{wwid}"
        furnish.until("the map", lambda: host.run(["test", "-b", device], check=False).returncode == 0)
        assert sorted(initiator.paths(host, wwid).values()) == ["active", "active"]
        with ThreadPoolExecutor(1) as thread, link_cut(host, "eth2"):
            began = time.monotonic()
            written = thread.submit(_write, host, device)
            furnish.until("a failed path", lambda: "failed" in initiator.paths(host, wwid).values(), 30)
            noticed = time.monotonic() - began
            assert written.result().returncode == 0
        print(f"path loss noticed after {noticed:.1f} s, 64 MiB written in {time.monotonic() - began:.1f} s")
        furnish.until("the path again", lambda: set(initiator.paths(host, wwid).values()) == {"active"}, 30)
    finally:
        host.run(["multipath", "-F"], check=False)
        host.control.signal(daemon, 15)
        host.control.wait(daemon, timeout_s=20)


def _write(host: MicroHost, device: str) -> object:
    """Longer than a path's loss takes to be noticed, in small pieces over all paths."""
    script = (
        "for i in $(seq 16); do dd if=/dev/zero of=$1 bs=4M count=1 seek=$i oflag=direct || exit 1; sleep 0.3; done"
    )
    return host.run(["sh", "-c", script, "write", device], timeout_s=WRITE_S)


def test_errors_and_delays_of_a_lun_reach_the_initiator_and_end(san: San, iscsi: Iscsi) -> None:
    host = san.hosts[1]
    initiator.log_in(host, iscsi.portals[0], iscsi.chap)
    device = f"/dev/disk/by-id/wwn-0x{storage_server.wwid('silver')[1:]}"
    read = ["dd", f"if={device}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct"]
    host.run(read)
    with storage_faults.lun_errors(san.server, "silver"):
        assert b"Input/output error" in host.run(read, check=False).stderr
    with storage_faults.lun_delayed(san.server, "silver", 1500):
        began = time.monotonic()
        host.run(read)
        assert time.monotonic() - began > 1.5
    began = time.monotonic()
    host.run(read)
    assert time.monotonic() - began < 1.5


def test_nvme_over_tcp_shows_the_namespace(san: San) -> None:
    device = storage_server.make_lun(san.server, "express", 256 << 20)
    storage_server.serve_nvme(san.server, device, address("san-a", SERVER))
    host = san.hosts[1]
    disk = initiator.connect_nvme(host, address("san-a", SERVER))
    try:
        host.run(["dd", f"of={disk}", "bs=4k", "oflag=direct", "conv=notrunc"], stdin=b"by way of TCP".ljust(4096))
        assert int(host.run(["blockdev", "--getsize64", disk]).stdout) == 256 << 20
        assert san.server.run(["dd", f"if={device}", "bs=4k", "count=1"]).stdout.startswith(b"by way of TCP")
    finally:
        host.run(["nvme", "disconnect-all"])
