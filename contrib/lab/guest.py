# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test guest boots: a kernel of the distribution and an initial RAM file system with busybox and our /init.

The guest says on its serial console, a line each:

    guest: kernel command line says <word after lab.token=>
    guest: disk says <first 64 bytes of the first virtio disk, up to a zero byte>
    guest: hardware says <SKU of the SMBIOS tables>
    guest: network up as <lab.address=>           (when it has a NIC and an address)
    guest: alive <n>                              (once a second; n goes up)
    guest: power button                           (then it switches itself off)

A disk whose first word is ``lab-write`` gets ``guest wrote <token>`` into its second sector.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contrib.lab import kernels
from contrib.lab.spec import CACHE, PREFIX

MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "evdev", "button")

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
    recipe = Path(__file__).stat().st_mtime
    if not initrd.exists() or not image.exists() or initrd.stat().st_mtime < max(recipe, kernel.image.stat().st_mtime):
        shutil.copyfile(kernel.image, image)
        temporary = folder / f".initrd.{os.getpid()}"
        temporary.write_bytes(gzip.compress(archive(kernel), compresslevel=1))
        temporary.rename(initrd)
    inside = f"{PREFIX}/.cache/guest"
    return Guest(f"{inside}/vmlinuz", f"{inside}/initrd.gz", image, initrd)


def archive(kernel: kernels.Kernel) -> bytes:
    """The initial RAM file system, as cpio."""
    files: list[tuple[str, int, bytes]] = [(name, 0o040755, b"") for name in ("bin", "dev", "proc", "sys", "modules")]
    files += [(name, 0o040755, b"") for name in ("etc", "etc/acpi", "etc/acpi/PWRF")]
    files.append(("bin/busybox", 0o100755, Path(_busybox()).read_bytes()))
    files.append(("init", 0o100755, INIT.encode()))
    files.append(("etc/acpi/PWRF/00000080", 0o100755, POWER_BUTTON.encode()))
    order = []
    for name, content in _modules(kernel):
        order.append(name)
        files.append((f"modules/{name}", 0o100644, content))
    files.append(("modules/order", 0o100644, "".join(f"{name}\n" for name in order).encode()))
    return b"".join(_member(number, *member) for number, member in enumerate(files, 1)) + _member(
        0, "TRAILER!!!", 0, b""
    )


def _busybox() -> str:
    for path in (shutil.which("busybox.static"), shutil.which("busybox")):
        if path and b"ld-linux" not in Path(path).read_bytes()[:4096]:
            return path
    raise kernels.KernelMissing("no static busybox: run `make setup`")


def _modules(kernel: kernels.Kernel) -> Iterator[tuple[str, bytes]]:
    """The modules that a guest needs and this kernel has not built in, each after what it depends on."""
    found = {path.name.split(".")[0].replace("-", "_"): path for path in kernel.modules.rglob("*.ko*")}
    done: set[str] = set()

    def load(name: str) -> Iterator[tuple[str, bytes]]:
        if name in done or name not in found:
            return
        done.add(name)
        content = _unpacked(found[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for needed in depends[1].decode().split(",") if depends else ():
            yield from load(needed.replace("-", "_"))
        yield f"{name}.ko", content

    for wanted in MODULES:
        yield from load(wanted)


def _unpacked(path: Path) -> bytes:
    tools = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-dcq"], ".gz": ["gzip", "-dc"]}
    if path.suffix not in tools:
        return path.read_bytes()
    return subprocess.run([*tools[path.suffix], str(path)], capture_output=True, check=True).stdout


def _member(inode: int, name: str, mode: int, content: bytes) -> bytes:
    """One member in cpio's "newc" format."""
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _aligned(head) + _aligned(content)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
