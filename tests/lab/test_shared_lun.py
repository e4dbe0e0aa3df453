# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts on one LUN, as on a Fibre Channel fabric."""

from __future__ import annotations

from contrib.lab.microvm.host import MicroHost

MIB = 1 << 20


def test_a_volume_group_made_on_one_host_is_seen_on_the_other(hosts: list[MicroHost], lun: str) -> None:
    first, second = hosts
    first.run(["vgcreate", "--metadatasize", "128m", "lab-one", lun])
    shown = second.run(["vgs", "--noheadings", "-o", "vg_name,pv_count", "lab-one"]).stdout.decode().split()
    assert shown == ["lab-one", "1"]


def test_an_extended_volume_shows_its_new_size_and_data_after_a_refresh(hosts: list[MicroHost], lun: str) -> None:
    first, second = hosts
    first.run(["vgcreate", "lab-two", lun])
    first.run(["lvcreate", "-qq", "-an", "-Zn", "-L", "128m", "-n", "volume", "lab-two"])
    for host in hosts:
        host.run(["lvchange", "-ay", "lab-two/volume"])
    first.run(["lvextend", "-qq", "-L", "256m", "lab-two/volume"])
    where = ["of=/dev/lab-two/volume", "bs=1M", "seek=200", "oflag=direct", "conv=notrunc,fdatasync"]
    first.run(["dd", *where], stdin=b"beyond the old end".ljust(MIB, b"."))
    assert _size(second) == 128 * MIB
    second.run(["lvchange", "--refresh", "lab-two/volume"])
    assert _size(second) == 256 * MIB
    read = ["dd", "if=/dev/lab-two/volume", "bs=1M", "skip=200", "count=1", "iflag=direct"]
    assert second.run(read).stdout.startswith(b"beyond the old end.")


def _size(host: MicroHost) -> int:
    return int(host.run(["blockdev", "--getsize64", "/dev/lab-two/volume"]).stdout)
