# SPDX-License-Identifier: GPL-2.0-or-later
"""The words that stand on shared storage, and the numbers that engines send for them."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class DomainKind(StrEnum):
    """TYPE of a domain. Its number is what engines send as storage type."""

    NFS = "NFS"
    FCP = "FCP"
    ISCSI = "ISCSI"
    LOCALFS = "LOCALFS"
    POSIXFS = "POSIXFS"
    GLUSTERFS = "GLUSTERFS"

    @property
    def number(self) -> int:
        return _KIND_NUMBERS[self]

    @classmethod
    def from_number(cls, number: int) -> DomainKind:
        """Raises `ValueError` for a number that stands for no kind."""
        for kind, known in _KIND_NUMBERS.items():
            if known == number:
                return kind
        raise ValueError(f"{number} is no storage type")


_KIND_NUMBERS = {
    DomainKind.NFS: 1,
    DomainKind.FCP: 2,
    DomainKind.ISCSI: 3,
    DomainKind.LOCALFS: 4,
    DomainKind.POSIXFS: 6,
    DomainKind.GLUSTERFS: 7,
}


class DomainClass(StrEnum):
    DATA = "Data"
    ISO = "Iso"
    BACKUP = "Backup"


class DomainRole(StrEnum):
    MASTER = "Master"
    REGULAR = "Regular"


class DomainStatus(StrEnum):
    """A domain's state in its pool."""

    UNKNOWN = "Unknown"
    ATTACHED = "Attached"
    UNATTACHED = "Unattached"
    ACTIVE = "Active"


class VolumeFormat(StrEnum):
    COW = "COW"
    RAW = "RAW"

    @property
    def number(self) -> int:
        return {"COW": 4, "RAW": 5}[self.value]

    @property
    def qemu(self) -> str:
        """The format as qemu names it."""
        return {"COW": "qcow2", "RAW": "raw"}[self.value]


class Allocation(StrEnum):
    """TYPE of a volume."""

    PREALLOCATED = "PREALLOCATED"
    SPARSE = "SPARSE"

    @property
    def number(self) -> int:
        return {"PREALLOCATED": 1, "SPARSE": 2}[self.value]


class VolumeRole(StrEnum):
    """VOLTYPE of a volume."""

    SHARED = "SHARED"
    INTERNAL = "INTERNAL"
    LEAF = "LEAF"


class Legality(StrEnum):
    LEGAL = "LEGAL"
    ILLEGAL = "ILLEGAL"
    FAKE = "FAKE"


class DiskType(StrEnum):
    DATA = "DATA"
    ISO = "ISOF"
    MEMORY_DUMP = "MEMD"
    MEMORY_METADATA = "MEMM"
    OVF_STORE = "OVFS"
    HE_VM = "HEVD"
    HE_SANLOCK = "HESD"
    HE_METADATA = "HEMD"
    HE_CONFIGURATION = "HECI"
    BACKUP_SCRATCH = "SCRD"


class FormatVersion(IntEnum):
    """VERSION of a domain. The field's 2, and 0 of data domains, have a lock of old that is not built."""

    V0 = 0
    """Of ISO and export domains only."""
    V3 = 3
    V4 = 4
    V5 = 5

    @property
    def has_leases(self) -> bool:
        """Host ids and leases as sanlock keeps them (flock on a local disk), a lease for each volume."""
        return self >= FormatVersion.V3

    @property
    def has_external_leases(self) -> bool:
        return self >= FormatVersion.V4

    @property
    def states_geometry(self) -> bool:
        """Block size and alignment stand in the metadata; those before are always 512 bytes and 1 MiB."""
        return self >= FormatVersion.V5

    @property
    def qcow2_compat(self) -> str:
        """Of new qcow2 volumes: what the oldest host that reads such a domain understands."""
        return "1.1" if self >= FormatVersion.V4 else "0.10"
