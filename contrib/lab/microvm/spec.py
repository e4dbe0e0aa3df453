# SPDX-License-Identifier: GPL-2.0-or-later
"""What one micro-VM is made of: chosen by the starter, read by its keeper and by its first process."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

# virtio-serial port of the door, see `channel`
PORT = "lab.door"
# sockets inside that have an end in the micro-VM's folder outside: {file name: path inside}
DOORS = {"control.sock": "/run/lab.sock", "exec.sock": "/run/lab-exec.sock", "agent.sock": "/run/vdsm/vdsm.sock"}
QMP_SOCKET = "qmp.sock"
CONSOLE = "console.log"
DISK = "disk.img"
DISK_BYTES = 8 << 30
# where that disk is mounted; what must survive a power cut lies on it
PERSISTENT = "/persistent"


@dataclass(frozen=True)
class Lun:
    """A disk on virtio-scsi. Several micro-VMs may have the same ``image``: it is then what a Fibre Channel LUN is."""

    image: str
    serial: str

    @property
    def wwn(self) -> str:
        """NAA identifier, as /dev/disk/by-id/wwn-... shows it."""
        return f"0x5000c500{zlib.crc32(self.serial.encode()):08x}"


@dataclass(frozen=True)
class Nic:
    name: str
    # network of the fabric, see `fabric`
    network: str
    mac: str
    # with prefix length; none: left unconfigured
    address: str = ""


@dataclass(frozen=True)
class MicroSpec:
    name: str
    host_id: str
    folder: str
    memory_mib: int = 1536
    # several CPUs of one emulated machine wait for each other, and on a busy machine for ever
    cpus: int = 1
    nics: tuple[Nic, ...] = ()
    luns: tuple[Lun, ...] = ()
    # process whose network namespace has the fabric's bridges; 0: no networks
    fabric: int = 0
    hosts: str = ""
    settings: str = ""
    # libvirtd, virtlogd and sanlock; a storage server needs none of them
    hypervisor: bool = True
    # i6300esb, and wdmd between sanlock and it
    watchdog: bool = False
    # an IOMMU with an e1000e behind it, for VFIO
    vfio: bool = False
    apparmor: bool = False
    modules: tuple[str, ...] = field(default=())

    def path(self, name: str) -> Path:
        return Path(self.folder, name)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> MicroSpec:
        fields = json.loads(text)
        fields["nics"] = tuple(Nic(**nic) for nic in fields["nics"])
        fields["luns"] = tuple(Lun(**lun) for lun in fields["luns"])
        fields["modules"] = tuple(fields["modules"])
        return cls(**fields)
