# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong with shared storage, each for the length of a ``with`` block and then restored.

LUN faults swap the device-mapper table of a `storage_server` LUN (or of any linear device): what initiators see is what
a failing disk array shows them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from contrib.lab.microvm import storage_server
from contrib.lab.microvm.faults import paused
from contrib.lab.microvm.host import MicroHost


@contextlib.contextmanager
def storage_hung(server: MicroHost) -> Iterator[None]:
    """The server answers nothing; its connections stay as they are."""
    with paused(server):
        yield


@contextlib.contextmanager
def export_changed(server: MicroHost, name: str, before: str, now: str = "") -> Iterator[None]:
    """The export has other options; none: it is withdrawn."""
    storage_server.withdraw(server, name)
    try:
        if now:
            storage_server.export(server, name, now)
        yield
    finally:
        storage_server.withdraw(server, name)
        storage_server.export(server, name, before)


@contextlib.contextmanager
def export_owned(server: MicroHost, name: str, owner: str) -> Iterator[None]:
    """The exported folder is somebody else's, who lets nobody in."""
    folder = f"{storage_server.EXPORT}/{name}"
    server.run(["sh", "-c", 'chown "$2" "$1" && chmod 0700 "$1"', "own", folder, owner])
    try:
        yield
    finally:
        server.run(["sh", "-c", 'chown 36:36 "$1" && chmod 0755 "$1"', "own", folder])


@contextlib.contextmanager
def lun_errors(server: MicroHost, name: str) -> Iterator[None]:
    """Every read and write of the LUN fails."""
    with _table(server, name, "0 {sectors} error"):
        yield


@contextlib.contextmanager
def lun_delayed(server: MicroHost, name: str, delay_ms: int) -> Iterator[None]:
    """Every read and write of the LUN takes that much longer."""
    with _table(server, name, "0 {sectors} delay {below} 0 " + str(delay_ms)):
        yield


@contextlib.contextmanager
def lun_flaky(server: MicroHost, name: str, *, up_s: int = 2, down_s: int = 2) -> Iterator[None]:
    """The LUN works and fails in turns, each for so many seconds."""
    with _table(server, name, "0 {sectors} flakey {below} 0 " + f"{up_s} {down_s}"):
        yield


@contextlib.contextmanager
def lun_hung(server: MicroHost, name: str) -> Iterator[None]:
    """Reads and writes of the LUN neither succeed nor fail until the end of the block."""
    server.run(["dmsetup", "suspend", "--noflush", "--nolockfs", name])
    try:
        yield
    finally:
        server.run(["dmsetup", "resume", name])


@contextlib.contextmanager
def _table(server: MicroHost, name: str, table: str) -> Iterator[None]:
    whole = server.run(["dmsetup", "table", name]).stdout.decode().strip()
    _, sectors, _, below, _ = whole.split()
    _swap(server, name, table.format(sectors=sectors, below=below))
    try:
        yield
    finally:
        _swap(server, name, whole)


def _swap(server: MicroHost, name: str, table: str) -> None:
    # without waiting for what is under way: it may be stuck
    server.run(["dmsetup", "suspend", "--noflush", "--nolockfs", name])
    try:
        server.run(["dmsetup", "load", name, "--table", table])
    finally:
        server.run(["dmsetup", "resume", name])
