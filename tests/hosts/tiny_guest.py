# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest of 136 bytes: a boot sector that does one thing for each letter that it gets on its second serial port.

It is up half a second after QEMU, in 32 MiB, and its CPU sleeps between letters. On the first serial port, whose log
`said` reads, it writes R when it has started, each letter that it got, and after a write W or E.

    w  write a sector to its disk      o  switch itself off         p  tell a panic (pvpanic)
    r  reset itself, as reboot does    d  let its watchdog bark (ib700)

It has no driver for ACPI: its power button does nothing.
"""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Sequence
from typing import Any

from contrib.lab import engine, vm_xml
from contrib.lab.host import PrivateHost
from vdsm.client import Client

CODE = bytes.fromhex(
    "31c0 8ed8 8ec0 8ed0 bc007c"  # no segments, a stack below the code
    "8816f07d b052 e85d00"  # which disk this came from; say R
    "fb f4 bafd02 ec a801 74f6"  # sleep until a clock tick, again until the second port has a letter
    "b2f8 ec e84d00"  # take it and say it
    "3c77 7431 3c6f 7414 3c72 7419 3c70 741d 3c64 75dc"  # w o r p d, or nothing
    "ba4304 b00f ee ebd4"  # d: the watchdog's time is over at once
    "ba0406 b80020 ef ebcb"  # o: ACPI's S5
    "baf90c b006 ee ebc3"  # r: the chip set's reset
    "ba0505 b001 ee ebbb"  # p: the panic device's port
    "be787c 8a16f07d b443 b000 cd13 b057 7302 b045 e80200 eba3"  # w: BIOS, write; say W or E
    "52 baf803 ee 5a c3"  # say: on the first port
    "1000 0100 007c 0000 0100000000000000"  # what to write: one sector from here to sector 1
)
SECTOR = CODE.ljust(510, b"\0") + b"\x55\xaa"
FOLDER = "/var/lib/libvirt/qemu"
VOLUME_BYTES = 1 << 20
PANIC = "<panic model='isa'/>"


async def new_volume(host: PrivateHost, client: Client, pool: engine.Pool) -> engine.Volume:
    """A raw volume that boots it."""
    volume = await engine.create_volume(client, pool, size_bytes=VOLUME_BYTES, thin=False)
    with open(volume_path(host, pool, volume), "r+b") as file:
        file.write(SECTOR)
    return volume


def volume_path(host: PrivateHost, pool: engine.Pool, volume: engine.Volume) -> str:
    return str(host.path(inside(pool, volume)))


def inside(pool: engine.Pool, volume: engine.Volume) -> str:
    """Where the host of a LOCALFS domain has it."""
    folder = pool.connection["connection"]
    return f"{folder}/{volume.domain_id}/images/{volume.image_id}/{volume.volume_id}"


def describe(volume: engine.Volume, *, devices: Sequence[str] = (), **more: Any) -> vm_xml.Vm:
    vm_id = str(uuid.uuid4())
    name = f"tiny-{vm_id[:8]}"
    port = f"<serial type='unix'><source mode='bind' path='{FOLDER}/{name}.letters'/><target port='1'/></serial>"
    return vm_xml.Vm(vm_id, name, memory_mib=32, disks=(volume.disk(),), devices=(port, *devices), **more)


def press(host: PrivateHost, vm: vm_xml.Vm, letter: str) -> None:
    with socket.socket(socket.AF_UNIX) as port:
        port.connect(str(host.path(f"{FOLDER}/{vm.name}.letters")))
        port.sendall(letter.encode())


def said(host: PrivateHost, vm: vm_xml.Vm) -> str:
    with contextlib.suppress(OSError):
        return "".join(c for c in host.path(vm.serial_log).read_text(errors="replace") if c in "RWEworpd")
    return ""


async def until_says(host: PrivateHost, vm: vm_xml.Vm, end: str, timeout_s: float = 30.0) -> None:
    async def look() -> bool:
        return said(host, vm).endswith(end)

    await engine.until(f"the guest says {end}", look, timeout_s=timeout_s)
