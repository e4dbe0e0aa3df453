# SPDX-License-Identifier: GPL-2.0-or-later
"""The initial RAM file system of a micro-VM: mounts the machine's root over 9p, memory above, and starts `init` there.

2.5 s after QEMU's start our first process runs. The layers, uppermost first: memory (lost with the micro-VM), the
package layer, the machine's root. The checkout and the kernel's modules are mounted read-only in their places.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from contrib.lab import initramfs, kernels
from contrib.lab.spec import CACHE, PREFIX

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console", "virtio_blk", "qemu_fw_cfg", "ext4")
# what hosts of every kind load at once; everything else comes by modprobe
ROOT, LAYER, CHECKOUT, KERNEL_MODULES = "root", "layer", "checkout", "modules"

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec >/dev/console 2>&1 </dev/console
die() {{ echo "failed: $*"; poweroff -f; }}
while read module; do insmod /modules/$module || die "module $module"; done < /modules/order
share() {{
    mkdir -p $2
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=loose,ro $1 $2 || die "share $1"
}}
share {ROOT} /lower
share {LAYER} /layer
mkdir /memory /host
mount -t tmpfs -o size=60% memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/layer:/lower,upperdir=/memory/upper,workdir=/memory/work host /host || die "root"
for folder in run tmp srv; do mkdir -p /host/$folder; mount -t tmpfs -o mode=755 $folder /host/$folder; done
chmod 1777 /host/tmp
share {CHECKOUT} /host{PREFIX}
share {KERNEL_MODULES} /host/usr/lib/modules
for folder in dev proc sys; do mount --move /$folder /host/$folder; done
cd /host{PREFIX}
exec switch_root /host {PREFIX}/.venv/bin/python -u -m contrib.lab.microvm.init
"""


def prepare() -> tuple[kernels.Kernel, Path]:
    """The kernel and the archive, built unless it is fresh. Raises KernelMissing."""
    kernel = kernels.find("lab")
    folder = CACHE / "microvm"
    folder.mkdir(parents=True, exist_ok=True)
    initrd = folder / "initrd.gz"
    recipe = max(path.stat().st_mtime for path in (Path(__file__), Path(initramfs.__file__), kernel.image))
    if not initrd.exists() or initrd.stat().st_mtime < recipe:
        temporary = folder / f".initrd.{os.getpid()}"
        temporary.write_bytes(gzip.compress(initramfs.archive(kernel, modules=MODULES, init=INIT), compresslevel=1))
        temporary.rename(initrd)
    return kernel, initrd
