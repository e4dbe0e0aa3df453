# SPDX-License-Identifier: GPL-2.0-or-later
"""Domain XML as a central engine sends it: place-holders, metadata of both namespaces, drives named by their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lxml import etree
from lxml.builder import ElementMaker  # type: ignore[import-not-found]

VM_NS = "http://ovirt.org/vm/1.0"
TUNE_NS = "http://ovirt.org/vm/tune/1.0"
X = ElementMaker()
V = ElementMaker(namespace=VM_NS, nsmap={"ovirt-vm": VM_NS})
Q = ElementMaker(namespace=TUNE_NS, nsmap={"ovirt-tune": TUNE_NS})
SERIAL_FOLDER = "/var/log/libvirt/qemu"


@dataclass(frozen=True)
class Disk:
    pool_id: str
    domain_id: str
    image_id: str
    volume_id: str
    target: str = "vda"
    # what the engine says; the agent corrects it from the volume
    format: str = "raw"


@dataclass(frozen=True)
class Vm:
    vm_id: str
    name: str
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    memory_mib: int = 256
    disks: Sequence[Disk] = ()
    bridges: Sequence[str] = ()
    custom: Mapping[str, str] = field(default_factory=dict)
    # domain type; empty: what this machine can run
    kind: str = ""
    # further devices, each an element's text
    devices: Sequence[str] = ()
    on_reboot: str = "destroy"
    on_crash: str = "destroy"
    resume_behaviour: str = "auto_resume"

    @property
    def serial_log(self) -> str:
        """Path inside the host of what the guest wrote on its serial console."""
        return f"{SERIAL_FOLDER}/{self.name}-serial.log"


def domain_type() -> str:
    """``kvm`` where this machine can really run a guest with it, else ``qemu``.

    A /dev/kvm alone proves nothing: without the CPU flag the guest would hang.
    """
    flags = Path("/proc/cpuinfo").read_text()
    return "kvm" if Path("/dev/kvm").exists() and (" vmx" in flags or " svm" in flags) else "qemu"


def to_xml(vm: Vm) -> str:
    os_parts = [X.type("hvm", arch="x86_64", machine="q35"), X.smbios(mode="sysinfo")]
    if vm.kernel:
        os_parts += [X.kernel(vm.kernel), X.initrd(vm.initrd), X.cmdline(vm.cmdline)]
    domain = X.domain(
        X.name(vm.name),
        X.uuid(vm.vm_id),
        X.memory(str(vm.memory_mib * 1024), unit="KiB"),
        X.currentMemory(str(vm.memory_mib * 1024), unit="KiB"),
        X.vcpu("1", current="1"),
        _sysinfo(vm.vm_id),
        X.clock(X.timer(name="hpet", present="no"), offset="variable", adjustment="0"),
        X.features(X.acpi()),
        X.os(*os_parts),
        X.on_poweroff("destroy"),
        X.on_reboot(vm.on_reboot),
        X.on_crash(vm.on_crash),
        _devices(vm),
        X.metadata(Q.qos(), _metadata(vm)),
        type=vm.kind or domain_type(),
    )
    return etree.tostring(domain, encoding="unicode", pretty_print=True)


def _sysinfo(vm_id: str) -> etree._Element:
    entries = {
        "manufacturer": "oVirt",
        "product": "OS-NAME:",
        "version": "OS-VERSION:",
        "serial": "HOST-SERIAL:",
        "uuid": vm_id,
    }
    sysinfo: etree._Element = X.sysinfo(
        X.system(*[X.entry(text, name=name) for name, text in entries.items()]), type="smbios"
    )
    return sysinfo


def _devices(vm: Vm) -> etree._Element:
    devices = [
        X.controller(type="pci", model="pcie-root", index="0"),
        X.controller(type="usb", model="none"),
        X.serial(X.source(path=vm.serial_log, append="on"), X.target(port="0"), type="file"),
        X.memballoon(model="none"),
    ]
    for disk in vm.disks:
        devices.append(
            X.disk(
                X.driver(name="qemu", type=disk.format, cache="none", io="threads", error_policy="stop"),
                X.source(file="", startupPolicy="mandatory"),
                X.target(dev=disk.target, bus="virtio"),
                X.serial(disk.image_id),
                X.alias(name=f"ua-{disk.image_id}"),
                type="file",
                device="disk",
                snapshot="no",
            )
        )
    for number, bridge in enumerate(vm.bridges):
        devices.append(
            X.interface(
                X.mac(address=_mac(number)),
                X.model(type="virtio"),
                X.link(state="up"),
                X.source(bridge=bridge),
                type="bridge",
            )
        )
    element: etree._Element = X.devices(*devices, *map(etree.fromstring, vm.devices))
    return element


def _metadata(vm: Vm) -> etree._Element:
    root: etree._Element = V.vm(
        V.clusterVersion("4.7"),
        V.minGuaranteedMemoryMb(str(vm.memory_mib), type="int"),
        V.ballooningEnabled("false", type="bool"),
        V.launchPaused("false", type="bool"),
        V.resumeBehavior(vm.resume_behaviour),
        V.custom(*[V(name, value) for name, value in vm.custom.items()]),
    )
    for number in range(len(vm.bridges)):
        root.append(V.device(V.custom(), devtype="interface", mac_address=_mac(number)))
    for disk in vm.disks:
        ids = {
            "poolID": disk.pool_id,
            "domainID": disk.domain_id,
            "imageID": disk.image_id,
            "volumeID": disk.volume_id,
        }
        parts = [V(name, value) for name, value in ids.items()]
        root.append(V.device(*parts, V.shared("false"), devtype="disk", name=disk.target))
    return root


def _mac(number: int) -> str:
    return f"56:6f:00:37:00:{number + 1:02x}"
