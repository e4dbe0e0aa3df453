# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that loses its leases while a process can't be killed is reset by its watchdog, in time.

The bound, with I/O time-out t: the last renewal succeeded just before the cut; 8 t later its leases count as lost for
it, the watchdog fires at most 60 s after that, and other hosts take over no earlier. wdmd looks every 10 s.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contrib.lab import furnish, registry
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.spec import Lun
from contrib.lab.spec import PYTHON
from tests.failure_logs import watched

pytestmark = pytest.mark.cost(130)

IO_TIMEOUT_S = 2
BOUND_S = 8 * IO_TIMEOUT_S + 60 + 10
PREPARE = """
set -e
dmsetup create leases --table "0 $(blockdev --getsz $1) linear $1 0"
sanlock direct init -s lab:0:/dev/mapper/leases:0
sanlock direct init -r lab:work:/dev/mapper/leases:1048576
"""
JOIN = f"import sanlock; sanlock.add_lockspace(b'lab', 1, '/dev/mapper/leases', iotimeout={IO_TIMEOUT_S})"
# reads the disk for ever: once that hangs, no signal ends it
READ = "dd if=/dev/mapper/leases of=/dev/null bs=1M count=1 iflag=direct 2>/dev/null"
WORK = f"while :; do {READ}; echo read; sleep 0.1; done"


@pytest.fixture
def guarded() -> Iterator[MicroHost]:
    with registry.folder("luns") as folder:
        image = folder / "lun.img"
        with open(image, "wb") as file:
            file.truncate(64 << 20)
        lun = Lun(str(image), "leases")
        with MicroHost("guarded", watchdog=True, luns=(lun,), modules=("dm-mod",)) as host, watched(host):
            host.run(["sh", "-c", PREPARE, "prepare", f"/dev/disk/by-id/wwn-{lun.wwn}"])
            host.run([PYTHON, "-c", JOIN], timeout_s=120)
            resource = "lab:work:/dev/mapper/leases:1048576"
            host.start_process(
                ["sanlock", "client", "command", "-r", resource, "-c", "/bin/sh", "-c", WORK], log="/var/log/work.log"
            )
            furnish.until("the lease's holder works", lambda: b"read" in host.get("/var/log/work.log"))
            yield host


@pytest.mark.timeout(400)
def test_a_host_that_loses_its_leases_is_reset_in_time(guarded: MicroHost) -> None:
    guarded.run(["dmsetup", "suspend", "--noflush", "--nolockfs", "leases"])
    waited = guarded.wait_ended(timeout_s=BOUND_S)
    print(f"reset {waited:.1f} s after the cut; the bound is {BOUND_S} s")
    assert "WATCHDOG" in [event["event"] for event in guarded.events()]
