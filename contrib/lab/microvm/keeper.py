# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that outlives everybody around one micro-VM: it starts QEMU, keeps its outer door, and removes it.

    starter --pipe--> keeper --> QEMU

It ends the micro-VM when the pipe from the starter closes (however the starter died) and on SIGTERM; it ends itself
when QEMU does. QEMU dies with the keeper by parent-death signal. QEMU's events are lines of `events.json` in the
folder, and its end is the last of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from contrib.lab import fabric, kernel_calls, kernels
from contrib.lab.microvm import boot, layer, qemu, tsc
from contrib.lab.microvm.channel import Channel
from contrib.lab.microvm.spec import DOORS, MicroSpec
from contrib.lab.registry import Record, start_time
from contrib.lab.spec import CHECKOUT

EVENTS = "events.json"
QEMU_LOG = "qemu.log"


def main() -> int:
    host = MicroSpec.from_json(sys.stdin.readline())
    record = Record(
        host.name, os.getpid(), start_time(os.getpid()), kind="micro", folder=host.folder, host_id=host.host_id
    )
    record.save()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    machine: subprocess.Popen[bytes] | None = None
    try:
        machine = _start(host)
        record.host = machine.pid
        record.save()
        _keep(host, machine)
    except (OSError, subprocess.SubprocessError, layer.LayerMissing, kernels.KernelMissing) as error:
        print(f"failed: {error}", flush=True)
        return 1
    finally:
        if machine is not None:
            machine.kill()
            machine.wait()
        with contextlib.suppress(OSError), open(host.path(EVENTS), "a") as events:
            events.write(json.dumps({"event": "ENDED", "code": machine.returncode if machine else None}) + "\n")
        record.remove_traces()
    return 0


def _start(host: MicroSpec) -> subprocess.Popen[bytes]:
    kernel, initrd = boot.prepare()
    host.path(qemu.SPEC_FILE).write_text(host.to_json())
    taps = []
    for nic in host.nics:
        tap = f"{host.name[-9:]}.{nic.name}"[-15:]
        fabric.plug(host.fabric, tap, nic.network)
        taps.append(tap)
    argv = qemu.command(
        host, kernel=kernel, initrd=initrd, layer=layer.find(), checkout=CHECKOUT, taps=taps, tsc_khz=tsc.khz()
    )
    where = fabric.enter(host.fabric) if host.fabric else []
    with open(host.path(QEMU_LOG), "ab") as log:
        return subprocess.Popen(
            [*where, *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=kernel_calls.die_with_parent,  # noqa: PLW1509 - the keeper has one thread
        )


def _keep(host: MicroSpec, machine: subprocess.Popen[bytes]) -> None:
    """Carry connections until the starter, or QEMU, is gone."""
    events = _connected(str(host.path(qemu.EVENTS_SOCKET)), machine)
    events.sendall(b'{"execute": "qmp_capabilities"}\n')
    door = _connected(str(host.path(qemu.DOOR_SOCKET)), machine)
    listeners = {}
    for name, inside in DOORS.items():
        listener = socket.socket(socket.AF_UNIX)
        host.path(name).unlink(missing_ok=True)
        listener.bind(str(host.path(name)))
        listener.listen(64)
        listeners[listener] = inside
    print(f"started {machine.pid}", flush=True)
    also: dict[int, Callable[[], bool]] = {
        sys.stdin.fileno(): lambda: False,
        events.fileno(): lambda: _record(events, host.path(EVENTS)),
    }
    Channel(door.fileno(), listeners).serve(also)


def _connected(path: str, machine: subprocess.Popen[bytes]) -> socket.socket:
    """QEMU's sockets appear within its first tenths of a second, without an event for us: look every 10 ms."""
    limit = time.monotonic() + 10
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
        except OSError:
            connection.close()
            if machine.poll() is not None or time.monotonic() > limit:
                log = Path(path).with_name(QEMU_LOG).read_text(errors="replace")
                raise OSError(f"QEMU did not start: {log.strip()[-800:]}") from None
            time.sleep(0.01)
        else:
            return connection


def _record(events: socket.socket, path: Path) -> bool:
    data = events.recv(65536)
    with open(path, "ab") as file:
        file.write(data)
    return bool(data)


if __name__ == "__main__":
    sys.exit(main())
