# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain that is to be made, in words that hold for every kind of storage."""

from __future__ import annotations

from dataclasses import dataclass

from storage.ondisk.layout import BLOCK_SIZE_512, MAX_HOSTS_DEFAULT
from storage.ondisk.values import DomainClass, DomainKind, FormatVersion


@dataclass(frozen=True)
class NewDomain:
    domain_id: str
    kind: DomainKind
    spec: str
    """What it is to lie on, as it was connected (`storage.servers.kinds`)."""
    description: str
    block_size: int = BLOCK_SIZE_512
    """Bytes; 0 takes what the storage works with (V5 on LOCALFS only)."""
    max_hosts: int = MAX_HOSTS_DEFAULT
    domain_class: DomainClass = DomainClass.DATA
    version: FormatVersion = FormatVersion.V5
