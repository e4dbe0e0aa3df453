# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test guest boots: a kernel of the distribution and an initial RAM file system with busybox and our /init.

The guest says on its serial console, a line each:

    guest: kernel command line says <word after lab.token=>
    guest: disk says <first 64 bytes of the first virtio disk, up to a zero byte>
    guest: hardware says <SKU of the SMBIOS tables>
    guest: network up as <lab.address=>           (when it has a NIC and an address)
    guest: alive <n>                              (once a second; n goes up)
    guest: agent was asked <line>                 (with lab.agent=mute: it answers guest-sync and nothing else)
    guest: power button                           (then it switches itself off)

A disk whose first word is ``lab-write`` gets ``guest wrote <token>`` into its second sector.

``python -m contrib.lab.guest`` builds it for the kernel in the cache.
"""

from __future__ import annotations

import gzip
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from contrib.lab import initramfs, kernels
from contrib.lab.spec import CACHE, PREFIX

MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "evdev", "button")

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec >/dev/console 2>&1 </dev/console
while read module; do insmod /modules/$module; done < /modules/order
acpid -d >/dev/null 2>&1 &
word() { for w in $(cat /proc/cmdline); do case $w in $1=*) echo ${w#$1=};; esac; done; }
token=$(word lab.token)
echo "guest: kernel command line says $token"
echo "guest: hardware says $(cat /sys/class/dmi/id/product_sku)"
if [ -b /dev/vda ]; then
    content=$(dd if=/dev/vda bs=64 count=1 2>/dev/null | tr '\\0' '\\n' | head -n 1)
    echo "guest: disk says $content"
    case $content in lab-write*)
        echo "guest wrote $token" | dd of=/dev/vda bs=512 seek=1 conv=notrunc,sync 2>/dev/null; sync;;
    esac
fi
address=$(word lab.address)
if [ -n "$address" ] && [ -e /sys/class/net/eth0 ]; then
    ip link set eth0 up && ip address add $address dev eth0 && echo "guest: network up as $address"
fi
agent() {
    exec 3<>$1
    while :; do
        read -r line <&3 || { sleep 1; continue; }  # nobody is at the other end yet
        case $line in
            *guest-sync*) id=${line##*\\"id\\":}; printf '{"return":%s}\\n' ${id%%[!0-9]*} >&3;;
            *) echo "guest: agent was asked $line";;
        esac
    done
}
[ "$(word lab.agent)" = mute ] && for port in /dev/vport*p1; do agent $port & done
n=0
while :; do n=$((n + 1)); echo "guest: alive $n"; sleep 1; done
"""

POWER_BUTTON = """#!/bin/busybox sh
echo "guest: power button" > /dev/console
sync
poweroff -f
"""


@dataclass(frozen=True)
class Guest:
    """Paths as a private host sees them, and as this machine does."""

    kernel: str
    initrd: str
    kernel_path: Path
    initrd_path: Path


def prepare() -> Guest:
    """Build the guest's initial RAM file system unless it is fresh. Raises KernelMissing."""
    kernel = kernels.find("guest")
    folder = CACHE / "guest"
    folder.mkdir(parents=True, exist_ok=True)
    image, initrd = folder / "vmlinuz", folder / "initrd.gz"
    recipe = max(Path(__file__).stat().st_mtime, Path(initramfs.__file__).stat().st_mtime)
    if not initrd.exists() or not image.exists() or initrd.stat().st_mtime < max(recipe, kernel.image.stat().st_mtime):
        shutil.copyfile(kernel.image, image)
        temporary = folder / f".initrd.{os.getpid()}"
        temporary.write_bytes(gzip.compress(archive(kernel), compresslevel=1))
        temporary.rename(initrd)
    inside = f"{PREFIX}/.cache/guest"
    return Guest(f"{inside}/vmlinuz", f"{inside}/initrd.gz", image, initrd)


def archive(kernel: kernels.Kernel) -> bytes:
    return initramfs.archive(
        kernel,
        modules=MODULES,
        init=INIT,
        folders=("etc", "etc/acpi", "etc/acpi/PWRF"),
        scripts={"etc/acpi/PWRF/00000080": POWER_BUTTON},
    )


if __name__ == "__main__":
    print(prepare())
