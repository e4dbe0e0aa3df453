# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU command line of a micro-VM: a pure function of its `MicroSpec`.

A disk write that QEMU has completed survives its death, as one that a disk has acknowledged survives a power cut;
what the guest's kernel still held in memory is lost.
"""

from __future__ import annotations

from pathlib import Path

from contrib.lab import kernels
from contrib.lab.microvm import boot, spec

EVENTS_SOCKET = "qmp-events.sock"
DOOR_SOCKET = "door.sock"
SPEC_FILE = "spec.json"
KERNEL_OPTIONS = (
    "console=ttyS0",
    "quiet",
    # a panic ends the micro-VM
    "panic=-1",
    "mitigations=off",
    "no_timer_check",
    "tsc=reliable",
    # nothing is measured that a busy machine makes wrong (see `tsc`): the HPET's frequency is written in it, that of a
    # CPU's own timer is not, and a kernel that takes it for too fast waits for ever
    "nolapic_timer",
    # seconds until a kernel that has lost a timer or a CPU says so
    "rcupdate.rcu_cpu_stall_timeout=10",
    "systemd.unified_cgroup_hierarchy=1",
)


def command(
    host: spec.MicroSpec,
    *,
    kernel: kernels.Kernel,
    initrd: Path,
    layer: Path,
    checkout: Path,
    taps: list[str],
    tsc_khz: int,
) -> list[str]:
    options = [*KERNEL_OPTIONS]
    options += [f"tsc_early_khz={tsc_khz}"] if tsc_khz else []
    options += ["apparmor=1", "security=apparmor"] if host.apparmor else ["apparmor=0"]
    options += ["intel_iommu=on", "iommu=pt"] if host.vfio else []
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-name", host.name, "-uuid", host.host_id),
        *("-accel", "tcg,thread=multi,tb-size=128"),
        *("-machine", "q35,kernel-irqchip=split" if host.vfio else "q35", "-cpu", "max"),
        *("-smp", str(host.cpus), "-m", str(host.memory_mib)),
        *("-kernel", str(kernel.image), "-initrd", str(initrd), "-append", " ".join(options)),
        *("-fw_cfg", f"name=opt/lab/spec,file={host.path(SPEC_FILE)}"),
        *("-serial", f"file:{host.path(spec.CONSOLE)}"),
        *("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"),
        *_monitors(host),
        *_share(boot.ROOT, Path("/")),
        *_share(boot.LAYER, layer),
        *_share(boot.CHECKOUT, checkout),
        *_share(boot.KERNEL_MODULES, kernel.modules.parent),
        *_drive("disk", str(host.path(spec.DISK))),
        *("-device", "virtio-blk-pci,drive=disk,serial=lab-disk"),
        *_scsi(host),
        *_nics(host, taps),
        *(("-device", "i6300esb", "-action", "watchdog=reset") if host.watchdog else ()),
        *(("-device", "intel-iommu,intremap=on,caching-mode=on") if host.vfio else ()),
        *(("-device", "e1000e,id=spare,mac=52:54:00:37:ff:01") if host.vfio else ()),
    ]


def lun_drive(lun: spec.Lun) -> str:
    """Several QEMUs open one image: no lock, no cache of their own."""
    return f"if=none,id=lun-{lun.serial},file={lun.image},format=raw,cache=none,file.locking=off,discard=unmap"


def lun_device(lun: spec.Lun) -> str:
    return (
        f"scsi-hd,bus=scsi.0,id=scsi-{lun.serial},drive=lun-{lun.serial},serial={lun.serial},wwn={lun.wwn},share-rw=on"
    )


def _monitors(host: spec.MicroSpec) -> list[str]:
    arguments = []
    for number, name in enumerate((spec.QMP_SOCKET, EVENTS_SOCKET)):
        arguments += ["-chardev", f"socket,id=monitor{number},path={host.path(name)},server=on,wait=off"]
        arguments += ["-mon", f"chardev=monitor{number},mode=control"]
    arguments += ["-device", "virtio-serial-pci"]
    arguments += ["-chardev", f"socket,id=door,path={host.path(DOOR_SOCKET)},server=on,wait=off"]
    return [*arguments, "-device", f"virtserialport,chardev=door,name={spec.PORT}"]


def _share(tag: str, folder: Path) -> tuple[str, ...]:
    share = f"local,id={tag},path={folder},security_model=none,readonly=on,multidevs=remap"
    return ("-fsdev", share, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}")


def _drive(name: str, path: str) -> tuple[str, str]:
    return ("-drive", f"if=none,id={name},file={path},format=raw,cache=writeback,discard=unmap")


def _scsi(host: spec.MicroSpec) -> list[str]:
    arguments = ["-device", "virtio-scsi-pci,id=scsi"]
    for lun in host.luns:
        arguments += ["-drive", lun_drive(lun), "-device", lun_device(lun)]
    return arguments


def _nics(host: spec.MicroSpec, taps: list[str]) -> list[str]:
    arguments = []
    for nic, tap in zip(host.nics, taps, strict=True):
        arguments += ["-netdev", f"tap,id=net-{nic.name},ifname={tap},script=no,downscript=no"]
        arguments += ["-device", f"virtio-net-pci,id={nic.name},netdev=net-{nic.name},mac={nic.mac}"]
    return arguments
