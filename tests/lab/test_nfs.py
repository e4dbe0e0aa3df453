# SPDX-License-Identifier: GPL-2.0-or-later
"""NFS of both generations: mounted, shared, and waited for while the server does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet

import pytest

from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.san import San
from contrib.lab.microvm.storage_faults import storage_hung

pytestmark = pytest.mark.cost(15)


@pytest.fixture(params=["3", "4.2"])
def mounted(request: pytest.FixtureRequest, hosts: list[MicroHost], nfs: dict[str, str]) -> Iterator[str]:
    """A folder that both hosts have mounted from the server."""
    folder, version = f"/mnt/nfs-{request.param}", request.param
    for host in hosts:
        host.run(["mkdir", "-p", folder])
        host.run(["mount", "-t", "nfs", "-o", f"vers={version},soft,timeo=600", nfs[version], folder])
    yield folder
    for host in hosts:
        host.run(["umount", "-f", folder])


def test_what_one_host_writes_as_vdsm_the_other_reads(hosts: list[MicroHost], mounted: str) -> None:
    hosts[0].run(["sh", "-c", f"echo shared > {mounted}/note"], user="vdsm")
    assert hosts[1].run(["cat", f"{mounted}/note"], user="vdsm").stdout == b"shared\n"


def test_io_waits_for_a_hung_server_and_completes(san: San, mounted: str) -> None:
    host = san.hosts[0]
    with ThreadPoolExecutor(1) as thread:
        with storage_hung(san.server):
            writing: Future[object] = thread.submit(
                host.run, ["dd", "if=/dev/zero", f"of={mounted}/late", "bs=4k", "count=1", "oflag=direct"]
            )
            with pytest.raises(NotYet):
                writing.result(timeout=3)
            host.run(["true"], timeout_s=5)  # the host itself goes on
        writing.result(timeout=60)
    assert san.hosts[1].run(["stat", "-c", "%s", f"{mounted}/late"]).stdout == b"4096\n"
