# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt counts of one VM, as typed words.

They are made where libvirt answers, in its reader's thread, so that the event loop never walks through some hundred
names of each VM. None is what libvirt did not tell. Times are nanoseconds, sizes bytes, memory KiB.

Nothing here changes once it was made and nothing refers back, so the garbage collector need not look at it.
"""

from __future__ import annotations

from msgspec import Struct


class Block(Struct, frozen=True, gc=False):
    """A disk, by its target."""

    name: str
    allocation: int | None = None
    physical: int | None = None
    rd_bytes: int | None = None
    rd_reqs: int | None = None
    rd_times: int | None = None
    wr_bytes: int | None = None
    wr_reqs: int | None = None
    wr_times: int | None = None
    fl_reqs: int | None = None
    fl_times: int | None = None


class Nic(Struct, frozen=True, gc=False):
    """A NIC, by its device on the host."""

    name: str
    rx_bytes: int | None = None
    rx_errs: int | None = None
    rx_drop: int | None = None
    tx_bytes: int | None = None
    tx_errs: int | None = None
    tx_drop: int | None = None


class Counters(Struct, frozen=True, gc=False, kw_only=True):
    """``whole``: QEMU was asked, too. Of a VM whose QEMU is busy or hangs libvirt tells only what the kernel knows."""

    whole: bool = False
    cpu_time: int | None = None
    cpu_user: int | None = None
    cpu_system: int | None = None
    vcpus: int | None = None
    # what the guest has now, and what it was started with
    memory: int | None = None
    memory_maximum: int | None = None
    # there is a balloon device; all that follows is told by the guest's driver for it
    balloon: bool = False
    available: int | None = None
    unused: int | None = None
    caches: int | None = None
    swap_in: int | None = None
    swap_out: int | None = None
    major_faults: int | None = None
    minor_faults: int | None = None
    blocks: tuple[Block, ...] = ()
    nics: tuple[Nic, ...] = ()
