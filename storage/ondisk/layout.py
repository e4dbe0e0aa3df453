# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes and offsets of everything that shared storage holds."""

from __future__ import annotations

from storage.errors import BlockSizeUnsupported, UnsupportedAlignment
from vdsm.common.units import MiB

METADATA_SIZE = 512
"""A volume's metadata, always one block of this size on block storage, at most this on files."""

BLOCK_SIZE_AUTO = 0
BLOCK_SIZE_NONE = 1
"""What a probe answers when the storage accepts any size."""
BLOCK_SIZE_512 = 512
BLOCK_SIZE_4K = 4096

MAX_HOSTS = 2000
MAX_HOSTS_DEFAULT = 250
MIN_HOST_ID, MAX_HOST_ID = 1, 2000
RESERVED_HOST_ID = 250
"""For what must be locked by a host that has no id in the pool: pool creation, forced detach."""

MAILBOX_FILE_SIZE = 16 * MiB

ISO_IMAGE_ID = "11111111-1111-1111-1111-111111111111"
"""The one folder of an ISO domain's images: files of any name, without metadata."""

SDM_SLOT = 1
LEASES_RESERVED_SLOTS = 100
V4_FIRST_METADATA_SLOT = 4
V5_FIRST_METADATA_SLOT = 1
V5_METADATA_AREA = MiB
V5_METADATA_SLOT_SIZE = 8192
V4_METADATA_SLOT_SIZE = 512

XLEASES_INDEX_SLOT = 1
XLEASES_FIRST_SLOT = 3


def alignment(block_size: int, max_hosts: int = MAX_HOSTS_DEFAULT) -> int:
    """Bytes that one lease takes. Raises `UnsupportedAlignment`."""
    if max_hosts < 1:
        raise UnsupportedAlignment(block_size, max_hosts)
    if block_size == BLOCK_SIZE_512 and max_hosts <= MAX_HOSTS:
        return MiB
    if block_size == BLOCK_SIZE_4K:
        for hosts, size in ((250, 1), (500, 2), (1000, 4), (2000, 8)):
            if max_hosts <= hosts:
                return size * MiB
    raise UnsupportedAlignment(block_size, max_hosts)


def choose_block_size(path: str, wanted: int, probed: int) -> int:
    """The block size of a new domain. Raises `BlockSizeUnsupported` when the storage has another one."""
    if wanted == BLOCK_SIZE_AUTO:
        return BLOCK_SIZE_512 if probed == BLOCK_SIZE_NONE else probed
    if probed not in (BLOCK_SIZE_NONE, wanted):
        raise BlockSizeUnsupported(path, wanted, probed)
    return wanted


def sdm_offset(align: int) -> int:
    return SDM_SLOT * align


def block_lease_offset(slot: int, align: int) -> int:
    """Where the lease of a block volume with this metadata slot lies in LV ``leases``."""
    return (LEASES_RESERVED_SLOTS + slot) * align


def metadata_slot_offset(slot: int, version: int) -> int:
    """Where a metadata slot lies in LV ``metadata``."""
    if version < 5:
        return slot * V4_METADATA_SLOT_SIZE
    return V5_METADATA_AREA + slot * V5_METADATA_SLOT_SIZE


def xlease_offset(record: int, align: int) -> int:
    return (XLEASES_FIRST_SLOT + record) * align
