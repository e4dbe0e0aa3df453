# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m contrib.benchmarks.boots [N [CPUS]]``: do micro-VMs come up, also on a busy machine?

Boots N hosts of so many CPUs, two at a time, beside a process that keeps one core busy, runs a command on each, and
prints how long they took. Ends with 1 when one did not come up.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from contrib.lab.control import HostFailed
from contrib.lab.kernel_calls import die_with_parent
from contrib.lab.microvm import boots
from contrib.lab.microvm.host import MicroHost

AT_ONCE = 2
BUSY = "while :; do :; done"


def main() -> int:
    count, cpus = (int(given) for given in (sys.argv[1:] + ["60", "1"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as threads:
        os.environ[boots.RECORD] = str(Path(folder, "boots"))
        busy = subprocess.Popen(["sh", "-c", BUSY], preexec_fn=die_with_parent)  # noqa: PLW1509 - no thread runs yet
        try:
            booted = threads.map(partial(_boot, cpus), range(1, count + 1))
            taken = [seconds for seconds in booted if seconds is not None]
        finally:
            busy.kill()
            busy.wait()
        print("\n".join(boots.summary(Path(folder, "boots"))))
    if len(taken) > 1:
        tenths = statistics.quantiles(taken, n=10)
        told = {"fastest": min(taken), "1 of 10": tenths[0], "median": tenths[4], "9 of 10": tenths[8]}
        told["slowest"] = max(taken)
        print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in told.items()))
    print(f"{len(taken)} of {count} came up; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0 if len(taken) == count else 1


def _boot(cpus: int, number: int) -> float | None:
    """Seconds until it answered; None when it did not."""
    began = time.monotonic()
    try:
        with MicroHost(cpus=cpus) as host:
            seconds = time.monotonic() - began
            host.run(["virsh", "list"])
    except (HostFailed, TimeoutError) as error:
        print(f"boot {number}: {error}", flush=True)
        return None
    print(f"boot {number}: {seconds:.1f} s", flush=True)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
